//! Validated strings, cheap to clone. Each type's pattern is in the CRD *and* checked when decoding, so
//! a value that reaches a URL or a file name is safe even where an older CRD let it through.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use std::{borrow::Cow, fmt, sync::Arc};

macro_rules! validated_string {
    ($(#[$doc:meta])* $name:ident, max: $max:literal, pattern: $pattern:literal, valid: $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The value.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidString;

            fn try_from(value: String) -> Result<Self, InvalidString> {
                value.parse()
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidString;

            fn from_str(value: &str) -> Result<Self, InvalidString> {
                let valid: fn(&str) -> bool = $valid;
                if (1..=$max).contains(&value.len()) && valid(value) {
                    Ok(Self(value.into()))
                } else {
                    Err(InvalidString { kind: stringify!($name), pattern: $pattern, max: $max })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "minLength": 1, "maxLength": $max, "pattern": $pattern })
            }
        }
    };
}

/// A string that does not fit its type's pattern. Does not repeat the value, which may be a secret
/// pasted into the wrong field, or a megabyte.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a valid {kind}: 1 to {max} characters matching {pattern}")]
pub struct InvalidString {
    kind: &'static str,
    pattern: &'static str,
    max: usize,
}

/// Characters of ids and cloud names. An allow-list: a deny-list of `/ . % ?` let `#`, `\`, NUL and
/// U+202E through to a URL.
fn is_id(value: &str) -> bool {
    value
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// A DNS subdomain as of RFC 1123, the form of Secret names.
fn is_dns_subdomain(value: &str) -> bool {
    value.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    })
}

validated_string! {
    /// The id of an asynchronous job of the Image Management Service.
    JobId, max: 64, pattern: "^[A-Za-z0-9_-]+$", valid: is_id
}

validated_string! {
    /// The id of a cloud project (tenant).
    ProjectId, max: 64, pattern: "^[A-Za-z0-9_-]+$", valid: is_id
}

validated_string! {
    /// The name of a Secret.
    SecretName, max: 253, pattern: "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    valid: is_dns_subdomain
}

validated_string! {
    /// The name of an entry under `clouds:` in a `clouds.yaml`.
    CloudName, max: 64, pattern: "^[A-Za-z0-9_.-]+$",
    valid: |value| value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_an_allow_list() {
        assert!("ff8080814dbd65d7014dbe0d84db0013".parse::<JobId>().is_ok());
        for bad in [
            "",
            "../x",
            "a%2fb",
            "a?b",
            "a\nb",
            "a#b",
            "a\\b",
            "a\0b",
            "a\u{202e}b",
            "ä",
        ] {
            assert!(bad.parse::<JobId>().is_err(), "{bad:?}");
            assert!(bad.parse::<ProjectId>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(64).parse::<JobId>().is_ok());
        let error = "x".repeat(1 << 20).parse::<JobId>().unwrap_err();
        assert!(error.to_string().len() < 100, "the value is not repeated");
    }

    #[test]
    fn secret_names_are_dns_subdomains() {
        for good in ["otc", "otc.prod-1"] {
            assert!(good.parse::<SecretName>().is_ok(), "{good}");
        }
        for bad in ["Otc", "-otc", "otc-", "otc..prod", "otc/prod", ""] {
            assert!(bad.parse::<SecretName>().is_err(), "{bad}");
        }
    }
}
