//! The fields of a cloud entry: the names under which they are written, and where.
//!
//! The names are those that openstacksdk folds together (its `openstack.config.loader`, version 4.22), and those
//! that gophercloud and the tools of Open Telekom Cloud use besides, for access keys and agencies above all.

use super::{MAX_CACERT_BYTES, MAX_FIELD_BYTES, MAX_TOKEN_BYTES};

/// A field that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    AuthType,
    AuthUrl,
    Username,
    UserId,
    Password,
    Token,
    ApplicationCredentialId,
    ApplicationCredentialName,
    ApplicationCredentialSecret,
    UserDomainName,
    UserDomainId,
    ProjectName,
    ProjectId,
    ProjectDomainName,
    ProjectDomainId,
    DomainName,
    DomainId,
    DefaultDomainName,
    DefaultDomainId,
    AccessKey,
    SecretKey,
    SecurityToken,
    AgencyName,
    AgencyDomainName,
    AgencyDomainId,
    DelegatedProject,
    Profile,
    RegionName,
    ImageRegionName,
    Interface,
    ImageEndpoint,
    ImageJobPath,
    CaCert,
    Verify,
    Insecure,
}

/// Where a field may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// Beside `auth` only.
    Beside,
    /// Inside `auth` or beside it. If it stands in both places, the one inside counts.
    InsideFirst,
    /// The same, but the one beside counts. Among several names, the name goes before the place.
    BesideFirst,
}

/// A row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Spelling {
    pub(crate) field: Field,
    /// How messages name it.
    pub(crate) path: &'static str,
    /// Its names. `-` may stand for `_`. If several are there, the last of these counts.
    pub(crate) names: &'static [&'static str],
    pub(crate) position: Position,
    pub(crate) is_secret: bool,
}

const fn row(
    field: Field,
    path: &'static str,
    names: &'static [&'static str],
    position: Position,
) -> Spelling {
    Spelling {
        field,
        path,
        names,
        position,
        is_secret: false,
    }
}

const fn secret(row: Spelling) -> Spelling {
    Spelling {
        is_secret: true,
        ..row
    }
}

/// All fields, in the order of [`Field`]. docs/cloud.md has the same table.
#[rustfmt::skip]
pub(crate) const SPELLINGS: [Spelling; 35] = {
    use Field as F;
    use Position::{Beside, BesideFirst, InsideFirst};
    [
        row(F::AuthType, "auth_type", &["auth_plugin", "auth_type"], Beside),
        row(F::AuthUrl, "auth.auth_url", &["auth_url"], InsideFirst),
        row(F::Username, "auth.username", &["user_name", "username"], InsideFirst),
        row(F::UserId, "auth.user_id", &["user_id"], InsideFirst),
        secret(row(F::Password, "auth.password", &["password"], InsideFirst)),
        secret(row(F::Token, "auth.token", &["auth_token", "token"], BesideFirst)),
        row(F::ApplicationCredentialId, "auth.application_credential_id", &["application_credential_id"], InsideFirst),
        row(F::ApplicationCredentialName, "auth.application_credential_name", &["application_credential_name"], InsideFirst),
        secret(row(F::ApplicationCredentialSecret, "auth.application_credential_secret", &["application_credential_secret"], InsideFirst)),
        row(F::UserDomainName, "auth.user_domain_name", &["user_domain_name"], BesideFirst),
        row(F::UserDomainId, "auth.user_domain_id", &["user_domain_id"], BesideFirst),
        row(F::ProjectName, "auth.project_name", &["tenant_name", "project_name"], BesideFirst),
        row(F::ProjectId, "auth.project_id", &["tenant_id", "project_id"], BesideFirst),
        row(F::ProjectDomainName, "auth.project_domain_name", &["project_domain_name"], BesideFirst),
        row(F::ProjectDomainId, "auth.project_domain_id", &["project_domain_id"], BesideFirst),
        row(F::DomainName, "auth.domain_name", &["domain_name"], BesideFirst),
        row(F::DomainId, "auth.domain_id", &["domain_id"], BesideFirst),
        row(F::DefaultDomainName, "auth.default_domain_name", &["default_domain_name"], InsideFirst),
        row(F::DefaultDomainId, "auth.default_domain_id", &["default_domain", "default_domain_id"], InsideFirst),
        row(F::AccessKey, "ak", &["access_key", "ak"], BesideFirst),
        secret(row(F::SecretKey, "sk", &["secret_key", "sk"], BesideFirst)),
        secret(row(F::SecurityToken, "security_token", &["security_token"], BesideFirst)),
        row(F::AgencyName, "agency_name", &["target_agency_name", "agency_name"], BesideFirst),
        row(F::AgencyDomainName, "agency_domain_name", &["agency_domain_name"], BesideFirst),
        row(F::AgencyDomainId, "agency_domain_id", &["target_domain_id", "agency_domain_id"], BesideFirst),
        row(F::DelegatedProject, "delegated_project", &["target_project_name", "delegated_project"], BesideFirst),
        row(F::Profile, "profile", &["cloud", "profile"], Beside),
        row(F::RegionName, "region_name", &["region_name", "regions"], Beside),
        row(F::ImageRegionName, "image_region_name", &["image_region_name"], Beside),
        row(F::Interface, "interface", &["interface", "endpoint_type", "image_interface", "image_endpoint_type"], Beside),
        row(F::ImageEndpoint, "image_endpoint_override", &["image_endpoint", "image_endpoint_override"], Beside),
        row(F::ImageJobPath, "image_job_path", &["image_job_path"], Beside),
        row(F::CaCert, "cacert", &["cacert"], Beside),
        row(F::Verify, "verify", &["verify"], Beside),
        row(F::Insecure, "insecure", &["insecure"], Beside),
    ]
};

impl Field {
    /// How messages name it.
    pub(crate) fn path(self) -> &'static str {
        SPELLINGS[self as usize].path
    }

    /// Longest text, in bytes.
    pub(crate) fn max_bytes(self) -> usize {
        match self {
            Self::Token | Self::SecurityToken => MAX_TOKEN_BYTES,
            Self::CaCert => MAX_CACERT_BYTES,
            _ => MAX_FIELD_BYTES,
        }
    }
}

/// The row of a key, and its precedence among others for the same field: the greatest counts.
pub(crate) fn find(key: &str, is_inside: bool) -> Option<(&'static Spelling, (usize, usize))> {
    let key = key.replace('-', "_");
    SPELLINGS.iter().find_map(|row| {
        let name = row.names.iter().position(|name| *name == key)?;
        let precedence = match row.position {
            Position::Beside if is_inside => return None,
            Position::Beside => (name, 0),
            Position::InsideFirst => (usize::from(is_inside), name),
            Position::BesideFirst => (name, usize::from(!is_inside)),
        };
        Some((row, precedence))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_fields_and_no_name_stands_twice() {
        for (n, row) in SPELLINGS.iter().enumerate() {
            assert_eq!(row.field as usize, n);
            assert_eq!(row.path, row.field.path());
        }
        let mut names: Vec<_> = SPELLINGS.iter().flat_map(|row| row.names).collect();
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn the_documented_fields_are_those_that_are_read() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/clouds-yaml.md");
        let page = std::fs::read_to_string(page).unwrap();
        let documented: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        assert_eq!(documented.len(), SPELLINGS.len());
        for (row, line) in SPELLINGS.iter().zip(documented) {
            let (own, others) = match row.names {
                ["region_name", _] => ("region_name", vec!["`regions`".to_owned()]),
                ["interface", others @ ..] => (
                    "interface",
                    others.iter().map(|n| format!("`{n}`")).collect(),
                ),
                [others @ .., own] => (*own, others.iter().map(|n| format!("`{n}`")).collect()),
                [] => panic!("a field has a name"),
            };
            let others = others.join(", ");
            let place = match row.position {
                Position::Beside => "beside `auth`",
                Position::InsideFirst => "inside, else beside",
                Position::BesideFirst => "beside, else inside",
            };
            let start = format!("| `{own}` | {others} | {place} | ").replace("|  |", "| |");
            assert!(line.starts_with(&start), "{line}\n{start}");
            assert!(line.len() > start.len() + 10, "no meaning: {line}");
        }
    }
}
