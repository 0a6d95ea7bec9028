//! Login identities: what a cloud counts rejections by, in one spelling.

use crate::config::{ApplicationCredentialRef, EntityRef, Identity, Keys, normalised};
use icu_normalizer::DecomposingNormalizerBorrowed;

/// A user, an application credential or an access key, at one host. Spellings that a cloud takes for the
/// same are equal: names differ in more than case, accents, spaces and invisible characters. The domain of a
/// user does not count, as its id and its name cannot be told to be those of one domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LoginIdentity {
    host: String,
    names: Names,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Names {
    Key(String),
    User(User),
    CredentialId(String),
    Credential { name: String, user: User },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum User {
    Id(String),
    Name(String),
}

impl LoginIdentity {
    /// An access key at `host[:port]`.
    pub(crate) fn of_keys(keys: &Keys, host: &str) -> Self {
        Self::new(host, Names::Key(folded(&keys.access)))
    }

    /// Who logs in at `host[:port]`. Tokens have none: no account is locked for a wrong one.
    pub(crate) fn of_login(identity: &Identity, host: &str) -> Option<Self> {
        let names = match identity {
            Identity::Password { user, .. } => Names::User(User::new(user)),
            Identity::ApplicationCredential { credential, .. } => match credential {
                ApplicationCredentialRef::Id(id) => Names::CredentialId(folded(id)),
                ApplicationCredentialRef::Name { name, user } => Names::Credential {
                    name: folded(name),
                    user: User::new(user),
                },
            },
            Identity::Token(_) => return None,
        };
        Some(Self::new(host, names))
    }

    /// A user at `host[:port]`.
    pub(crate) fn of_user(user: &EntityRef, host: &str) -> Self {
        Self::new(host, Names::User(User::new(user)))
    }

    /// Whether it is the id of a user, who is counted by its name as well.
    pub(crate) fn is_user_id(&self) -> bool {
        matches!(self.names, Names::User(User::Id(_)))
    }

    fn new(host: &str, names: Names) -> Self {
        Self {
            host: normalised(host),
            names,
        }
    }
}

impl User {
    fn new(user: &EntityRef) -> Self {
        match user {
            EntityRef::Id(id) => Self::Id(folded(id)),
            EntityRef::Name { name, .. } => Self::Name(folded(name)),
        }
    }
}

/// Letters without case and accents, digits and punctuation: databases of identity services compare no more.
fn folded(name: &str) -> String {
    let is_compared = |c: &char| c.is_alphanumeric() || c.is_ascii_punctuation();
    DecomposingNormalizerBorrowed::new_nfkd()
        .normalize_iter(name.chars())
        .filter(is_compared)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DomainRef;

    fn named(name: &str, domain: DomainRef, host: &str) -> LoginIdentity {
        let name = name.to_owned();
        LoginIdentity::of_user(&EntityRef::Name { name, domain }, host)
    }

    #[test]
    fn spellings_of_one_account_are_one_identity() {
        let by_name = || DomainRef::Name("OTC1".to_owned());
        let alice = named("alice", by_name(), "iam.example.com");
        for (name, host) in [
            ("ALICE", "IAM.example.com"),
            (" alice\t", "iam.example.com."),
            ("alicé", "iam.example.com:443"),
            ("ali\u{200d}ce", "iam.example.com.:443"),
            ("ａｌｉｃｅ", "iam.example.com"),
            ("alıce", "iam.example.com"),
        ] {
            assert_eq!(named(name, by_name(), host), alice, "{name} {host}");
        }
        let by_id = DomainRef::Id("7f3a".to_owned());
        assert_eq!(named("alice", by_id, "iam.example.com"), alice);
        let ids = ["7F3A", "7f3a "].map(|id| EntityRef::Id(id.to_owned()));
        let [upper, lower] = ids.map(|id| LoginIdentity::of_user(&id, "iam.example.com"));
        assert_eq!(upper, lower);
        assert!(upper.is_user_id() && !alice.is_user_id());
    }

    #[test]
    fn other_accounts_kinds_and_hosts_are_other_identities() {
        let host = "iam.example.com";
        let keys = |access: &str| Keys {
            access: access.to_owned(),
            secret: "s".into(),
            security_token: None,
        };
        let credential = |credential| Identity::ApplicationCredential {
            credential,
            secret: "s".into(),
        };
        let robot = |user| ApplicationCredentialRef::Name {
            name: "robot".to_owned(),
            user,
        };
        let id = || EntityRef::Id("alice".to_owned());
        let by_name = |name, host| named(name, DomainRef::Name("OTC1".to_owned()), host);
        let login = |identity| LoginIdentity::of_login(&identity, host).unwrap();
        let all = [
            by_name("alice", host),
            by_name("bob", host),
            by_name("alice", "iam.example.org"),
            by_name("alice", "iam.example.com:8443"),
            by_name("alice", "[fd00::1]"),
            by_name("alice", "[fd00::2]:443"),
            LoginIdentity::of_user(&id(), host),
            LoginIdentity::of_keys(&keys("alice"), host),
            LoginIdentity::of_keys(&keys("alice"), "ims.example.com"),
            login(credential(ApplicationCredentialRef::Id("alice".to_owned()))),
            login(credential(robot(id()))),
            login(credential(robot(EntityRef::Id("bob".to_owned())))),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(!all[n + 1..].contains(one), "{one:?}");
        }
        let token = Identity::Token("t".into());
        assert_eq!(LoginIdentity::of_login(&token, host), None);
    }
}
