//! Every way to authorise requests, as users of the clouds' own tools write it.

use super::{CANARY, credential, place, strict};
use crate::{
    CloudsFile, JobPath,
    config::{
        Agency, ApplicationCredentialRef, Auth, CloudEntry, DomainRef, EntityRef, Identity,
        KeystoneLogin,
    },
};
use image_export_model::ConfigurationReason;
use rcgen::{CertificateParams, KeyPair};
use secrecy::ExposeSecret;
use serde_json::json;

fn parse(lines: &[&str]) -> Result<CloudEntry, String> {
    let yaml = format!("clouds:\n  otc:\n    {}\n", lines.join("\n    "));
    super::entry(yaml.as_bytes()).map_err(|error| error.message.to_string())
}

fn entry(lines: &[&str]) -> CloudEntry {
    parse(lines).unwrap()
}

#[test]
fn application_credentials_by_id_or_by_name_and_user() {
    let by_id = entry(&[
        "auth_type: v3applicationcredential",
        "auth:",
        "  auth_url: https://iam.example.com/v3",
        "  application_credential_id: 7f3a",
        "  application_credential_secret: s3cret",
    ]);
    let Auth::Keystone(KeystoneLogin {
        identity: Identity::ApplicationCredential { credential, secret },
        agency: None,
        ..
    }) = by_id.auth
    else {
        panic!("{by_id:?}")
    };
    assert_eq!(credential, ApplicationCredentialRef::Id("7f3a".into()));
    assert_eq!(secret.expose_secret(), "s3cret");

    let by_name = entry(&[
        "auth_type: v3applicationcredential",
        "auth: {auth_url: https://iam.example.com/v3, application_credential_name: robot, \
         username: alice, user_domain_id: d1, application_credential_secret: s}",
    ]);
    let Auth::Keystone(KeystoneLogin {
        identity: Identity::ApplicationCredential { credential, .. },
        ..
    }) = by_name.auth
    else {
        panic!("{by_name:?}")
    };
    let user = EntityRef::Name {
        name: "alice".into(),
        domain: DomainRef::Id("d1".into()),
    };
    let name = "robot".to_owned();
    assert_eq!(credential, ApplicationCredentialRef::Name { name, user });
}

#[test]
fn references_are_serialized_as_keystone_names_them() {
    let user = EntityRef::Name {
        name: "alice".into(),
        domain: DomainRef::Id("d1".into()),
    };
    let json_of_user = json!({"name": "alice", "domain": {"id": "d1"}});
    assert_eq!(json!(user), json_of_user);
    assert_eq!(json!(EntityRef::Id("u1".into())), json!({"id": "u1"}));
    let name = "robot".to_owned();
    assert_eq!(
        json!(ApplicationCredentialRef::Name { name, user }),
        json!({"name": "robot", "user": json_of_user})
    );
    let by_id = ApplicationCredentialRef::Id("7f3a".into());
    assert_eq!(json!(by_id), json!({"id": "7f3a"}));
}

#[test]
fn an_agency_is_assumed_by_whoever_signs_in_beside_or_inside_auth() {
    let auth = "auth_url: https://iam.example.com/v3, username: alice, password: p, \
                user_domain_name: OTC1, project_name: eu-de";
    let agency = "agency_name: exporter, agency_domain_name: OTC2, delegated_project: eu-de_theirs";
    let inside = entry(&[&format!("auth: {{{auth}, {agency}}}")]);
    let beside = entry(&[
        &format!("auth: {{{auth}}}"),
        "agency_name: exporter",
        "agency_domain_name: OTC2",
        "delegated_project: eu-de_theirs",
    ]);
    for entry in [inside, beside] {
        let Auth::Keystone(KeystoneLogin {
            identity: Identity::Password { .. },
            agency:
                Some(Agency {
                    name,
                    domain,
                    caller_project: Some(own),
                }),
            ..
        }) = &entry.auth
        else {
            panic!("{entry:?}")
        };
        let theirs = DomainRef::Name("OTC2".into());
        assert_eq!((name.as_str(), domain), ("exporter", &theirs));
        let ours = DomainRef::Name("OTC1".into());
        let project = |name: &str, domain| EntityRef::Name {
            name: name.to_owned(),
            domain,
        };
        assert_eq!(own, &project("eu-de", ours));
        assert_eq!(entry.project, Some(project("eu-de_theirs", theirs)));
    }
    let error = parse(&[&format!("auth: {{{auth}, agency_name: exporter}}")]).unwrap_err();
    assert!(error.contains("agency_domain_name is missing"), "{error}");
}

#[test]
fn keys_permanent_or_temporary_beside_or_inside_auth_in_both_spellings() {
    for (lines, temporary) in [
        (&["ak: AK1", "sk: s3cret", "region_name: eu-de"][..], false),
        (
            &[
                "access_key: AK1",
                "secret_key: s3cret",
                "region_name: eu-de",
            ],
            false,
        ),
        (
            &[
                "auth: {ak: AK1, sk: s3cret, security_token: st}",
                "region_name: eu-de",
            ],
            true,
        ),
        (
            &[
                "auth_type: aksk",
                "auth: {access_key: AK1, secret_key: s3cret, password: p}",
                "security_token: st",
                "region_name: eu-de",
            ],
            true,
        ),
    ] {
        let entry = entry(lines);
        let Auth::Keys { keys, endpoint } = &entry.auth else {
            panic!("{entry:?}")
        };
        assert_eq!(keys.access, "AK1");
        assert_eq!(keys.secret.expose_secret(), "s3cret");
        assert_eq!(keys.security_token.is_some(), temporary);
        assert_eq!(endpoint.host(), "ims.eu-de.otc.t-systems.com");
    }
    for (lines, missing) in [
        (&["ak: AK1"][..], "clouds.otc.sk is missing"),
        (&["sk: s"], "clouds.otc.ak is missing"),
        (&["auth_type: aksk"], "clouds.otc.ak is missing"),
        (&["ak: AK1", "sk: s"], "clouds.otc.region_name is missing"),
        (
            &["ak: 'A K'", "sk: s"],
            "clouds.otc.ak is not an access key",
        ),
    ] {
        let error = parse(lines).unwrap_err();
        assert!(error.contains(missing), "{error}");
    }
}

/// Keys for the object store stand beside the password in many files.
#[test]
fn a_password_goes_before_keys_unless_auth_type_says_otherwise() {
    let entry = entry(&[
        "ak: AK1",
        "sk: s",
        "auth: {auth_url: https://iam.example.com, user_id: u, password: p}",
    ]);
    assert!(matches!(
        entry.auth,
        Auth::Keystone(KeystoneLogin {
            identity: Identity::Password { .. },
            ..
        })
    ));
}

#[test]
fn keys_find_the_image_service_by_override_identity_service_or_region() {
    for (lines, host) in [
        (
            &[
                "image_endpoint_override: https://ims.example.com:8443/v2",
                "region_name: eu-de",
            ][..],
            "ims.example.com:8443",
        ),
        (&["region_name: eu-nl"], "ims.eu-nl.otc.t-systems.com"),
        (
            &["auth: {project_name: eu-de_team, domain_name: d}"],
            "ims.eu-de.otc.t-systems.com",
        ),
        (
            &[
                "auth: {auth_url: 'https://iam-pub.{region_name}.sc.otc.t-systems.com/v3'}",
                "region_name: eu-ch2",
            ],
            "ims.eu-ch2.sc.otc.t-systems.com",
        ),
        (
            &[
                "auth: {auth_url: 'https://iam.myhuaweicloud.com/v3'}",
                "region_name: cn-north-4",
            ],
            "ims.cn-north-4.myhuaweicloud.com",
        ),
    ] {
        let mut all = vec!["ak: AK1", "sk: s"];
        all.extend(lines);
        let entry = entry(&all);
        let Auth::Keys { endpoint, .. } = &entry.auth else {
            panic!("{entry:?}")
        };
        assert_eq!(endpoint.host(), host);
    }
    let error = parse(&["ak: AK1", "sk: s", "region_name: 'example.com/#'"]).unwrap_err();
    assert!(
        error.contains("image_endpoint_override is missing"),
        "{error}"
    );
}

#[test]
fn a_cloud_may_name_the_path_of_its_job_query() {
    let keys = ["ak: AK1", "sk: s", "region_name: eu-de"];
    assert_eq!(entry(&keys).job_path, None);
    let with = |path| [keys[0], keys[1], keys[2], path].map(str::to_owned);
    let newer = with("image_job_path: cloudimages");
    let newer: Vec<_> = newer.iter().map(String::as_str).collect();
    assert_eq!(entry(&newer).job_path, Some(JobPath::Cloudimages));
    let wrong = with("image_job_path: v2");
    let wrong: Vec<_> = wrong.iter().map(String::as_str).collect();
    let error = parse(&wrong).unwrap_err();
    assert!(
        error.contains("image_job_path is neither v1-jobs nor cloudimages"),
        "{error}"
    );
}

#[test]
fn hosts_beside_the_public_clouds_are_refused_by_name() {
    for lines in [
        "auth: {auth_url: https://iam.evil.test/v3, user_id: u, password: p}",
        "image_endpoint_override: https://169.254.169.254",
        "image_endpoint_override: https://kubernetes.default.svc",
    ] {
        let yaml = format!("clouds: {{otc: {{{lines}}}}}");
        let error = super::entry(yaml.as_bytes()).unwrap_err();
        assert_eq!(
            error.reason,
            ConfigurationReason::EndpointNotAllowed,
            "{error:?}"
        );
        assert!(error.message.contains("--allow-host"), "{error:?}");
    }
}

#[test]
fn certificates_come_from_the_key_cacert_or_stand_in_the_entry() {
    let key = KeyPair::generate().unwrap();
    let pem = CertificateParams::new(Vec::new())
        .unwrap()
        .self_signed(&key)
        .unwrap()
        .pem();
    let lines = "auth: {auth_url: https://iam.example.com, user_id: u, password: p}";
    let plain = format!("clouds: {{otc: {{{lines}}}}}");
    let parse = |yaml: &str, cacert: Option<&str>| super::parse(yaml.as_bytes(), cacert, &strict());
    assert!(parse(&plain, None).unwrap().clients.is_none());
    assert!(parse(&plain, Some(&pem)).unwrap().clients.is_some());
    let of_no_use = format!("clouds: {{otc: {{{lines}, cacert: /etc/ssl/ca.pem, verify: true}}}}");
    assert!(parse(&of_no_use, None).unwrap().clients.is_none());
    let unverified = format!("clouds: {{otc: {{{lines}, verify: false}}}}");
    assert!(parse(&unverified, None).unwrap().clients.is_some());
    // As some providers of Secrets write what is absent.
    for blank in ["", "\n", " \r\n"] {
        let credential = parse(&plain, Some(blank)).unwrap();
        assert!(credential.clients.is_none(), "{blank:?}");
    }
    for wrong in [
        "not a certificate",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----",
        // One that cannot be read among others is not found only when the client is built.
        &format!("{pem}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"),
    ] {
        let error = parse(&plain, Some(wrong)).unwrap_err();
        assert!(
            error.message.contains("key cacert of Secret team-a/otc"),
            "{error:?}"
        );
    }
    let version = |cacert: &str| {
        let file = CloudsFile {
            place: &place(),
            clouds_yaml: Some(plain.as_bytes()),
            cacert: Some(cacert.as_bytes()),
        };
        file.version("otc")
    };
    assert_ne!(
        version("a"),
        version("b"),
        "a new certificate is a new content"
    );
}

#[test]
fn no_form_shows_its_secrets() {
    for lines in [
        "auth_type: v3applicationcredential, auth: {auth_url: https://iam.example.com, application_credential_id: i, application_credential_secret: canary-7f3a}",
        "ak: AK1, sk: canary-7f3a, security_token: canary-7f3a, region_name: eu-de",
        "auth: {auth_url: https://iam.example.com, user_id: u, password: canary-7f3a}, agency_name: a, agency_domain_name: d",
    ] {
        let credential = credential(&format!("clouds: {{otc: {{{lines}}}}}")).unwrap();
        assert!(
            !format!("{credential:?}").contains(CANARY),
            "{credential:?}"
        );
    }
}
