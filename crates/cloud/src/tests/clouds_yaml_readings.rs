//! `clouds.yaml` as openstacksdk reads it, and as it is read here: each file of `tests/clouds_yaml`. A file in which
//! the two differ says why in a line `# differs: …`. The readings are recorded in `README.md` beside the files;
//! `RECORD=1` writes it.

use super::{Place, strict};
use crate::{
    CloudsFile, Credential,
    config::{
        Agency, ApplicationCredentialRef, Auth, CloudEntry, DomainRef, EntityRef, Identity,
        KeystoneLogin,
    },
};
use secrecy::ExposeSecret;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use testbed::python::Environment;

/// What a file says, by field.
type Reading = BTreeMap<&'static str, String>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clouds_yaml")
}

/// What openstacksdk reads in each file.
fn readings_of_the_sdk(files: &[PathBuf]) -> Vec<Reading> {
    let environment = Environment::locate().unwrap();
    let testbed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/testbed");
    let mut command: Command = environment.command();
    command.arg(testbed.join("python/read_clouds_yaml.py"));
    let output = command.args(files).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(of_the_sdk).collect()
}

fn of_the_sdk(line: &str) -> Reading {
    let fields: BTreeMap<String, Value> = serde_json::from_str(line).unwrap();
    let text = |name: &str| {
        fields.get(name).map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    };
    let mut reading = Reading::new();
    if let Some(error) = text("error") {
        reading.insert("error", error);
        return reading;
    }
    let first = |names: &[&str]| names.iter().find_map(|name| text(name));
    let entity = |id: &str, name: &str, domain: &str| {
        let in_domain = || {
            let id = |name: &str| text(name).map(|id| format!("id {id}"));
            id(&format!("{domain}_id"))
                .or_else(|| text(&format!("{domain}_name")))
                .or_else(|| id("default_domain_id"))
                .or_else(|| text("default_domain_name"))
                .unwrap_or_else(|| "none".to_owned())
        };
        let id = text(id).map(|id| format!("id {id}"));
        id.or_else(|| text(name).map(|name| format!("{name} in {}", in_domain())))
    };
    let method = text("auth_type").map(|method| method.replace("v3", ""));
    let verify = text("verify").map(|verify| (verify != "false").to_string());
    let interface = text("interface").map(|interface| interface.replace("URL", ""));
    let fields = [
        ("method", method),
        ("auth_url", text("auth_url")),
        ("user", entity("user_id", "username", "user_domain")),
        (
            "project",
            entity("project_id", "project_name", "project_domain"),
        ),
        (
            "application credential",
            first(&["application_credential_id", "application_credential_name"]),
        ),
        (
            "secret",
            first(&["password", "token", "application_credential_secret"]),
        ),
        ("region", text("region")),
        ("interface", interface),
        ("endpoint", text("endpoint")),
        ("verify", verify),
    ];
    reading.extend(
        fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    reading
}

/// What is read here.
fn reading(file: &Path) -> Reading {
    let yaml = fs::read(file).unwrap();
    let place = Place::File("clouds.yaml".to_owned());
    let file = CloudsFile {
        place: &place,
        clouds_yaml: Some(&yaml),
        cacert: None,
    };
    match Credential::parse(&file, "otc", &strict()) {
        Ok(credential) => of_entry(&credential.entry),
        Err(error) => Reading::from([("error", error.message.to_string())]),
    }
}

fn of_entry(entry: &CloudEntry) -> Reading {
    let mut reading = Reading::from([
        ("interface", entry.interface.clone()),
        ("verify", (!entry.trust.accept_any).to_string()),
    ]);
    let url =
        |endpoint: &crate::config::Endpoint| endpoint.as_str().trim_end_matches('/').to_owned();
    let domain = |domain: &DomainRef| match domain {
        DomainRef::Id(id) => format!("id {id}"),
        DomainRef::Name(name) => name.clone(),
    };
    let entity = |entity: &EntityRef| match entity {
        EntityRef::Id(id) => format!("id {id}"),
        EntityRef::Name { name, domain: of } => format!("{name} in {}", domain(of)),
    };
    reading.extend(
        entry
            .project
            .as_ref()
            .map(|project| ("project", entity(project))),
    );
    reading.extend(entry.region.clone().map(|region| ("region", region)));
    reading.extend(
        entry
            .image_endpoint
            .as_ref()
            .map(|image| ("endpoint", url(image))),
    );
    let mut put = |name, value: &str| _ = reading.insert(name, value.to_owned());
    match &entry.auth {
        Auth::Keys { keys, endpoint } => {
            put("method", "aksk");
            put("endpoint", &url(endpoint));
            put("user", &keys.access);
            put("secret", keys.secret.expose_secret());
        }
        Auth::Token { token, .. } => {
            put("method", "token");
            put("secret", token.expose_secret());
        }
        Auth::Keystone(KeystoneLogin {
            auth_url,
            identity,
            agency,
        }) => {
            if let Some(agency) = agency {
                let Agency {
                    name, domain: of, ..
                } = agency;
                put("agency", &format!("{name} in {}", domain(of)));
            }
            put("auth_url", &url(auth_url));
            put("secret", identity.secret().expose_secret());
            match identity {
                Identity::Password { user, .. } => {
                    put("method", "password");
                    put("user", &entity(user));
                }
                Identity::Token(_) => put("method", "token"),
                Identity::ApplicationCredential { credential, .. } => {
                    put("method", "applicationcredential");
                    match credential {
                        ApplicationCredentialRef::Id(id) => put("application credential", id),
                        ApplicationCredentialRef::Name { name, user } => {
                            put("application credential", name);
                            put("user", &entity(user));
                        }
                    }
                }
            }
        }
    }
    reading
}

fn shown(reading: &Reading) -> String {
    let fields = reading.iter().filter(|(name, value)| {
        let defaults = [("interface", "public"), ("verify", "true")];
        !defaults.contains(&(**name, value.as_str()))
    });
    let fields = fields.map(|(name, value)| format!("{name}: {value}"));
    fields.collect::<Vec<_>>().join(", ").replace('|', "\\|")
}

#[test]
fn each_file_is_read_as_by_openstacksdk_or_says_why_not() {
    let mut files: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|end| end == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 60);
    let sdk = readings_of_the_sdk(&files);
    assert_eq!(sdk.len(), files.len());
    let mut table = "# How each file is read

Entry `otc` of each file, as openstacksdk 4.22 reads it and as the operator does. Written by
`RECORD=1 cargo test --lib openstacksdk`; checked by each `cargo test`. Interface `public` and checked certificates
are left out. Secrets stand here because these are none.

| file | read as | openstacksdk, where it differs | why |
|---|---|---|---|
"
    .to_owned();
    let mut wrong = Vec::new();
    for (file, sdk) in files.iter().zip(sdk) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let ours = reading(file);
        let is_same = ours == sdk || ours.contains_key("error") && sdk.contains_key("error");
        let text = fs::read_to_string(file).unwrap();
        let differs = text
            .lines()
            .find_map(|line| line.strip_prefix("# differs: "));
        if is_same == differs.is_some() {
            wrong.push(format!("{name}:\n  {}\n  {}", shown(&ours), shown(&sdk)));
        }
        let (theirs, why) = match differs {
            None => (String::new(), ""),
            Some(why) => (shown(&sdk), why),
        };
        writeln!(table, "| {name} | {} | {theirs} | {why} |", shown(&ours)).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let recorded = folder().join("README.md");
    if std::env::var_os("RECORD").is_some() {
        fs::write(&recorded, &table).unwrap();
    }
    let is_recorded = fs::read_to_string(&recorded).is_ok_and(|text| text == table);
    assert!(
        is_recorded,
        "README.md of the files is out of date: RECORD=1 writes it"
    );
}
