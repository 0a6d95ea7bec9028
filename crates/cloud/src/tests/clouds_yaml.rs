//! `clouds.yaml`: what is understood, and the error of each mistake.

use super::{CANARY, credential, grant, parse, place, strict};
use crate::{
    CloudsFile, Credential, JobPath, Place,
    config::{Auth, CloudEntry, DomainRef, EntityRef, Identity, KeystoneLogin},
};
use image_export_model::ConfigurationReason::{
    self, CredentialsInvalid, CredentialsNotFound, EndpointInvalid, EndpointNotAllowed,
};
use secrecy::ExposeSecret;

fn entry(yaml: &str) -> CloudEntry {
    super::entry(yaml.as_bytes()).unwrap()
}

/// User and password of an entry.
fn password(entry: &CloudEntry) -> (&EntityRef, &str) {
    match &entry.auth {
        Auth::Keystone(KeystoneLogin {
            identity: Identity::Password { user, password },
            ..
        }) => (user, password.expose_secret()),
        other => panic!("not a password: {other:?}"),
    }
}

/// An entry `otc` with these lines.
fn otc(lines: &[&str]) -> String {
    format!("clouds:\n  otc:\n    {}\n", lines.join("\n    "))
}

const AUTH: &str = "auth: {auth_url: https://iam.example.com/v3, username: u, password: canary-7f3a, user_domain_name: OTC1, project_name: eu-de_x}";

#[test]
fn a_password_entry_as_otc_users_write_it() {
    let entry = entry(
        "clouds:
  otc:
    profile: otc
    identity_api_version: 3
    region_name: eu-de
    interface: publicURL
    auth:
      auth_url: https://iam.{region_name}.otc.t-systems.com/v3
      username: alice
      password: s3cret
      domain_name: OTC00000000001000000447
      project_name: eu-de_team
  other: {auth: [not, ours]}
",
    );
    let Auth::Keystone(KeystoneLogin {
        auth_url,
        identity: Identity::Password { user, password },
        agency: None,
    }) = entry.auth
    else {
        panic!("not a password")
    };
    let domain = DomainRef::Name("OTC00000000001000000447".into());
    assert_eq!(
        auth_url.tokens_uri(true),
        "https://iam.eu-de.otc.t-systems.com/v3/auth/tokens"
    );
    assert_eq!(
        user,
        EntityRef::Name {
            name: "alice".into(),
            domain: domain.clone()
        }
    );
    assert_eq!(password.expose_secret(), "s3cret");
    assert_eq!(
        entry.project,
        Some(EntityRef::Name {
            name: "eu-de_team".into(),
            domain
        })
    );
    assert_eq!(
        (entry.region.as_deref(), &*entry.interface),
        (Some("eu-de"), "public")
    );
    assert_eq!(entry.image_endpoint, None);
}

#[test]
fn ids_go_before_names_and_the_project_may_be_left_out() {
    let entry = entry(&otc(&[
        "auth_type: v3password",
        "auth: {auth_url: https://iam.example.com, user_id: u1, username: u, password: p}",
        "image_endpoint_override: https://ims.example.com/v2",
    ]));
    assert!(matches!(password(&entry).0, EntityRef::Id(id) if id == "u1"));
    assert_eq!(entry.project, None);
    let endpoint = entry.image_endpoint.unwrap();
    assert_eq!(
        endpoint.job_uri(
            JobPath::V1Jobs,
            &"p".parse().unwrap(),
            &"j".parse().unwrap()
        ),
        "https://ims.example.com/v1/p/jobs/j"
    );
}

#[test]
fn numbers_and_booleans_are_text_in_their_own_spelling() {
    for (spelling, text) in [
        ("12345", "12345"),
        ("123e4", "123e4"),
        ("0012", "0012"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("1.50", "1.50"),
        ("true", "true"),
        ("No", "No"),
        ("'null'", "null"),
        ("2024-01-01", "2024-01-01"),
        ("' spaced '", " spaced "),
    ] {
        let auth = format!(
            "auth: {{auth_url: https://iam.example.com, user_id: 7, password: {spelling}, project_id: 123e4}}"
        );
        let entry = entry(&otc(&[&auth]));
        assert_eq!(password(&entry).1, text);
        assert_eq!(entry.project, Some(EntityRef::Id("123e4".into())));
    }
}

#[test]
fn anchors_and_merge_keys_work() {
    let yaml = "x: &d {auth_url: https://iam.example.com, password: p}\nclouds: {otc: {auth: {<<: *d, user_id: u}}}";
    assert_eq!(password(&entry(yaml)).1, "p");
}

/// Found by fuzzing: a few lines that unfold to 8⁵ values.
#[test]
fn aliases_that_multiply_are_refused() {
    let mut lines = vec!["a0: &a0 [x, x, x, x, x, x, x, x]".to_owned()];
    for n in 1..5 {
        let before = vec![format!("*a{}", n - 1); 8].join(", ");
        lines.push(format!("a{n}: &a{n} [{before}]"));
    }
    lines.push("clouds: {otc: *a4}".to_owned());
    let yaml = lines.join("\n");
    let error = credential(&yaml).unwrap_err();
    assert_eq!(error.reason, CredentialsInvalid);
}

#[test]
fn a_token_needs_an_identity_service_or_an_endpoint() {
    for (lines, good) in [
        (
            &[
                "auth_type: token",
                "auth: {auth_url: https://iam.example.com, token: t}",
            ][..],
            true,
        ),
        (
            &[
                "auth_type: v3token",
                "auth: {token: t}",
                "image_endpoint_override: https://ims.example.com",
            ],
            true,
        ),
        (&["auth_type: token", "auth: {token: t}"], false),
        (
            &[
                "auth_type: token",
                "auth: {auth_url: https://iam.example.com}",
            ],
            false,
        ),
        (
            &[
                "auth_type: token",
                "auth: {auth_url: https://iam.example.com, token: \"a b\"}",
            ],
            false,
        ),
    ] {
        assert_eq!(credential(&otc(lines)).is_ok(), good, "{lines:?}");
    }
}

/// Parses each document and expects its error: the reason, words that help, and no value.
fn expect_errors(cases: &[(String, ConfigurationReason, &[&str])]) {
    for (yaml, reason, words) in cases {
        let error = parse(yaml.as_bytes(), None, &strict()).unwrap_err();
        let message = &*error.message;
        assert_eq!(error.reason, *reason, "{yaml}\n{message}");
        for word in ["Secret team-a/otc"].iter().chain(*words) {
            assert!(message.contains(word), "{yaml}\n{message} lacks {word}");
        }
        assert!(!message.contains(CANARY), "{message}");
        assert!(!message.ends_with('.') && message.len() <= 512, "{message}");
    }
}

#[test]
fn a_document_that_cannot_be_read_is_named_with_the_place_but_not_the_content() {
    let clouds = |entry: &str| format!("clouds: {{otc: {entry}}}");
    let unreadable: &[&str] = &["not valid YAML"];
    expect_errors(&[
        (String::new(), CredentialsInvalid, &["empty"]),
        (" \n".into(), CredentialsInvalid, &["empty"]),
        ("null".into(), CredentialsInvalid, &["clouds.yaml"]),
        (CANARY.into(), CredentialsInvalid, unreadable),
        ("other: 1".into(), CredentialsInvalid, &["\"clouds\""]),
        (
            format!("clouds:\n  otc:\n  - {CANARY}: [\n"),
            CredentialsInvalid,
            &["at line"],
        ),
        (
            clouds("{auth: {password: [canary-7f3a]}}"),
            CredentialsInvalid,
            &["at line 1, column"],
        ),
        (
            clouds("{auth: canary-7f3a}"),
            CredentialsInvalid,
            unreadable,
        ),
        (
            clouds("{auth: {password: \"canary-7f3a}}"),
            CredentialsInvalid,
            unreadable,
        ),
        (
            clouds("{auth: {password: canary-7f3a, password: canary-7f3a}}"),
            CredentialsInvalid,
            unreadable,
        ),
        (clouds("*canary-7f3a"), CredentialsInvalid, unreadable),
    ]);
}

#[test]
fn a_missing_entry_names_those_that_are_there() {
    let six = "clouds: {a: {}, b: {}, c: {}, d: {}, e: {}, f: {}}";
    expect_errors(&[
        (
            "clouds: {}".into(),
            CredentialsNotFound,
            &["\"otc\"", "it has none"],
        ),
        (six.into(), CredentialsNotFound, &["a, b, c, d, e and more"]),
    ]);
}

#[test]
fn a_missing_or_wrong_field_is_named() {
    let with = |line| otc(&[AUTH, line]);
    let without = |key: &str| otc(&[&AUTH.replace(&format!("{key}:"), "unknown:")]);
    let auth_url = |url: &str| otc(&[&AUTH.replace("https://iam.example.com/v3", url)]);
    expect_errors(&[
        (
            "clouds: {otc: }".into(),
            CredentialsInvalid,
            &["clouds.otc.auth.auth_url is missing"],
        ),
        (
            without("auth_url"),
            CredentialsInvalid,
            &["clouds.otc.auth.auth_url is missing"],
        ),
        (
            without("username"),
            CredentialsInvalid,
            &["clouds.otc.auth.username is missing"],
        ),
        (
            without("password"),
            CredentialsInvalid,
            &["clouds.otc.auth.password is missing"],
        ),
        (
            without("user_domain_name"),
            CredentialsInvalid,
            &["domain_name is missing"],
        ),
        (
            with("auth_type: v3oidcpassword"),
            CredentialsInvalid,
            &[
                "clouds.otc.auth_type",
                "write password, token, v3applicationcredential or aksk",
            ],
        ),
        (
            with("auth_type: canary-7f3a"),
            CredentialsInvalid,
            &["not supported"],
        ),
        (
            auth_url("'https://iam.{region_name}.example.com'").replace("eu-de_x", "''"),
            CredentialsInvalid,
            &["clouds.otc.region_name is missing"],
        ),
        (
            auth_url("'https://iam.{zone}.example.com'"),
            CredentialsInvalid,
            &["auth_url holds a placeholder; only {region_name} is replaced"],
        ),
        (
            with("image_endpoint_override: https://ims.example.com/$(project_id)s/v2"),
            CredentialsInvalid,
            &["image_endpoint_override holds a placeholder"],
        ),
        (
            otc(&[&AUTH.replace("canary-7f3a", "\"$ANSIBLE_VAULT;1.1;AES256 canary-7f3a\"")]),
            CredentialsInvalid,
            &["clouds.otc.auth.password is cipher text"],
        ),
    ]);
}

#[test]
fn an_address_that_must_not_be_used_is_named_with_its_field() {
    let image = |url: &str| otc(&[AUTH, &format!("image_endpoint_override: {url}")]);
    let auth_url = |url: &str| otc(&[&AUTH.replace("https://iam.example.com/v3", url)]);
    expect_errors(&[
        (
            image("canary-7f3a"),
            EndpointInvalid,
            &["clouds.otc.image_endpoint_override"],
        ),
        (
            image("https://u:canary-7f3a@h"),
            EndpointInvalid,
            &["user info"],
        ),
        (
            image("https://user:7/canary-7f3a@ims.example.com"),
            EndpointInvalid,
            &["user info"],
        ),
        (
            auth_url("'https://canary-7f3a:12/3@iam.example.com/v3'"),
            EndpointInvalid,
            &["user info"],
        ),
        // The entry's own password in the wrong field.
        (
            image("https://canary-7f3a"),
            EndpointNotAllowed,
            &["host [redacted]"],
        ),
        (
            auth_url("https://iam.Canary-7F3A.com"),
            EndpointNotAllowed,
            &["host iam.[redacted].com"],
        ),
        (
            image("http://ims.example.com"),
            EndpointNotAllowed,
            &["ims.example.com", "--allow-http"],
        ),
        (
            auth_url("http://iam.example.com"),
            EndpointNotAllowed,
            &["clouds.otc.auth.auth_url", "--allow-http"],
        ),
    ]);
}

#[test]
fn a_cloud_name_is_shown_without_control_characters() {
    let file = CloudsFile {
        place: &place(),
        clouds_yaml: Some(b"clouds: {}"),
        cacert: None,
    };
    let error = Credential::parse(&file, "o\u{202e}t\u{1b}c\n", &strict()).unwrap_err();
    assert!(
        error.message.contains("no cloud \"otc\""),
        "{}",
        error.message
    );
}

#[test]
fn a_name_that_is_a_secret_is_not_shown() {
    for (field, secret) in [
        ("sk", "sk: canary-7f3a"),
        ("security_token", "security_token: canary-7f3a"),
        ("auth.password", "auth: {password: canary-7f3a}"),
        ("auth.token", "auth: {token: canary-7f3a}"),
        ("auth.sk", "auth: {sk: canary-7f3a}"),
        ("auth.security_token", "auth: {security_token: canary-7f3a}"),
        (
            "application_credential_secret",
            "auth: {application_credential_secret: canary-7f3a}",
        ),
    ] {
        let yaml = format!("clouds: {{{CANARY}: {{auth_type: x, {secret}}}}}");
        let file = CloudsFile {
            place: &place(),
            clouds_yaml: Some(yaml.as_bytes()),
            cacert: None,
        };
        let error = Credential::parse(&file, CANARY, &strict()).unwrap_err();
        assert_eq!(error.reason, CredentialsInvalid);
        let message = &*error.message;
        assert!(!message.contains(CANARY), "{field}: {message}");
        assert!(message.contains("clouds.[redacted]."), "{field}: {message}");
    }
}

#[test]
fn a_secret_without_the_key_or_not_utf_8() {
    let file = CloudsFile {
        place: &place(),
        clouds_yaml: None,
        cacert: None,
    };
    let error = Credential::parse(&file, "otc", &strict()).unwrap_err();
    assert_eq!(error.reason, CredentialsNotFound);
    assert_eq!(&*error.message, "Secret team-a/otc has no key clouds.yaml");
    let error = parse(b"\xff\xfe", None, &strict()).unwrap_err();
    assert_eq!(error.reason, CredentialsInvalid);
    assert!(error.message.contains("UTF-8"), "{}", error.message);
}

/// A file has no keys, and a user of `query` no Secret.
#[test]
fn a_message_about_a_file_names_the_file() {
    let place = Place::File("my/clouds.yaml".to_owned());
    for (yaml, cacert, message) in [
        ("", None, "file my/clouds.yaml is empty"),
        (
            "clouds: {}",
            None,
            "file my/clouds.yaml has no cloud \"otc\"; it has none",
        ),
        (
            "clouds: {otc: {sk: s}}",
            None,
            "in file my/clouds.yaml, clouds.otc.ak is missing or empty",
        ),
        (
            "clouds: {otc: {ak: A, sk: s, region_name: eu-de}}",
            Some(&b"x"[..]),
            "cacert in file my/clouds.yaml is not a list of certificates in PEM, each between lines -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----",
        ),
    ] {
        let file = CloudsFile {
            place: &place,
            clouds_yaml: Some(yaml.as_bytes()),
            cacert,
        };
        let error = Credential::parse(&file, "otc", &strict()).unwrap_err();
        assert_eq!(&*error.message, message);
    }
}

#[test]
fn a_credential_names_its_project_and_the_file_of_its_certificates() {
    let plain = credential(&otc(&[AUTH])).unwrap();
    assert_eq!((plain.project_id(), plain.cacert_path()), (None, None));
    let by_id = AUTH.replace("project_name: eu-de_x", "project_id: p1");
    let with_path = credential(&otc(&[&by_id, "cacert: ' /etc/ca.pem '"])).unwrap();
    assert_eq!(with_path.project_id(), Some("p1"));
    assert_eq!(with_path.cacert_path(), Some("/etc/ca.pem"));
}

#[test]
fn equal_content_has_an_equal_version() {
    let (one, same) = (
        credential(&otc(&[AUTH])).unwrap(),
        credential(&otc(&[AUTH])).unwrap(),
    );
    let other = credential(&otc(&[AUTH, "region_name: eu-nl"])).unwrap();
    assert_eq!(one.version(), same.version());
    assert_ne!(one.version(), other.version());
    let version = |clouds_yaml: Option<&[u8]>| {
        let file = CloudsFile {
            place: &place(),
            clouds_yaml,
            cacert: None,
        };
        file.version("otc")
    };
    assert_eq!(one.version(), version(Some(otc(&[AUTH]).as_bytes())));
    assert_ne!(version(None), version(Some(b"")));
}

#[test]
fn no_debug_form_shows_a_secret() {
    let token = [
        "auth_type: token",
        "auth: {token: canary-7f3a}",
        "image_endpoint_override: https://ims.example.com",
    ];
    for yaml in [otc(&[AUTH]), otc(&token)] {
        let credential = credential(&yaml).unwrap();
        let entry = &credential.entry;
        let shown = format!("{credential:?} {entry:#?} {:?}", entry.redactor);
        assert!(!shown.contains(CANARY), "{shown}");
    }
    assert!(!format!("{:?}", grant()).contains(CANARY));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), text in "[a-z:{}\\[\\]&*<|>!'\"\n -]{0,80}") {
        let _ = super::entry(&bytes);
        let _ = super::entry(format!("clouds:\n  otc: {text}").as_bytes());
    }
}

#[test]
fn keys_without_a_meaning_are_named_and_secrets_in_them_are_not() {
    let credential = credential(&otc(&[
        "networks: []",
        "canary-7f3a: x",
        "auth: {auth_url: https://iam.example.com, user_id: u, password: canary-7f3a, scope: y}",
        "user_nam: z",
    ]))
    .unwrap();
    let ignored = ["networks", "[redacted]", "auth.scope", "user_nam"];
    assert_eq!(credential.ignored_keys(), ignored);
}

#[test]
fn a_value_with_a_tag_of_another_tool_is_refused_by_key_tag_and_line() {
    for (value, tag) in [
        ("!vault |\n        cipher text", "!vault"),
        ("!include password.txt", "!include"),
        ("!!binary cGFzc3dvcmQ=", "!!binary"),
        ("!<tag:example.com,2000:x> y", "tag:example.com,2000:x"),
    ] {
        let lines = [
            "auth:",
            "  auth_url: https://iam.example.com",
            "  user_id: u",
        ];
        let yaml = otc(&lines) + "      password: " + value + "\n";
        let error = credential(&yaml).unwrap_err();
        assert_eq!(error.reason, CredentialsInvalid);
        let expected = format!("clouds.otc.auth.password has the YAML tag {tag} at line 6, with");
        assert!(error.message.contains(&expected), "{}", error.message);
    }
    for value in ["!!str p", "! p"] {
        let auth =
            format!("auth: {{auth_url: https://iam.example.com, user_id: u, password: {value}}}");
        assert!(credential(&otc(&[&auth])).is_ok(), "{value}");
    }
}

#[test]
fn an_access_key_needs_no_domain_of_its_project() {
    let entry = entry(&otc(&[
        "auth_type: aksk",
        "auth: {auth_url: https://iam.eu-nl.otc.t-systems.com/v3, project_name: eu-nl_x, ak: AK, sk: s}",
    ]));
    let Auth::Keys { endpoint, .. } = entry.auth else {
        panic!("not an access key")
    };
    assert_eq!(endpoint.host(), "ims.eu-nl.otc.t-systems.com");
    assert!(endpoint.is_derived());
    assert_eq!(entry.project, None);
}
