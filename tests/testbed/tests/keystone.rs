//! What a real Keystone does to tokens, as the operator and the simulated cloud meet it.

mod common;

use common::{PATIENCE, eventually, is_alive, is_part, start_part};
use reqwest::{Client, Response};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Once, OnceLock},
    thread,
    time::{Duration, Instant},
};
use testbed::{
    keystone::{Config, Keystone, User},
    python::Environment,
};

const DOMAIN: &str = "OTC00000000001000000101";
const PASSWORD: &str = "correct horse";
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_password_opens_a_project_and_the_answer_has_the_catalog() {
    let keystone = shared();
    let (user, project) = member(keystone, "kay", "eu-de_images").await;
    keystone
        .set_image_endpoint("http://127.0.0.1:1")
        .await
        .unwrap();
    let scope = json!({ "project": { "name": "eu-de_images", "domain": { "name": DOMAIN } } });
    let body = login(keystone, password(&user), &scope).await;
    assert_eq!(body["token"]["project"]["id"], *project);
    assert_eq!(body["token"]["user"]["name"], "kay");
    assert_eq!(
        endpoint(&body, "identity"),
        [("public", "eu-de", keystone.url())]
    );
    assert_eq!(
        endpoint(&body, "image"),
        [("public", "eu-de", "http://127.0.0.1:1")]
    );

    keystone
        .set_image_endpoint("http://127.0.0.1:2/v2")
        .await
        .unwrap();
    let body = login(keystone, password(&user), &scope).await;
    assert_eq!(
        endpoint(&body, "image"),
        [("public", "eu-de", "http://127.0.0.1:2/v2")]
    );
}

#[tokio::test]
async fn a_wrong_password_and_a_foreign_project_are_rejected() {
    let keystone = shared();
    let (mut user, project) = member(keystone, "lee", "lees").await;
    let foreign = keystone.create_project("foreign", DOMAIN).await.unwrap();
    let status = |response: Response| response.status().as_u16();
    let own = json!({ "project": { "id": project } });
    let theirs = json!({ "project": { "id": foreign } });
    let answer = post_login(keystone, password(&user), &own).await;
    assert_eq!(status(answer), 201);
    let answer = post_login(keystone, password(&user), &theirs).await;
    assert_eq!(status(answer), 401);
    user.password = "wrong".into();
    let answer = post_login(keystone, password(&user), &own).await;
    assert_eq!(status(answer), 401);
}

#[tokio::test]
async fn a_token_ends_with_its_lifetime_and_not_before() {
    let keystone = Keystone::start(Config {
        // Long enough for the administrator's own on a slow machine.
        token_lifetime: 10 * SECOND,
        ..Config::default()
    })
    .unwrap();
    let (user, project) = member(&keystone, "max", "short").await;
    let issued = Instant::now();
    let token = keystone.issue_token(&user, &project).await.unwrap();
    while validate(&keystone, &token).await == 200 {
        assert!(issued.elapsed() < PATIENCE, "the token lives on");
        tokio::time::sleep(SECOND / 20).await;
    }
    // Issue and end are rounded to seconds.
    assert!(issued.elapsed() > 9 * SECOND, "{:?}", issued.elapsed());
    // On a slow machine another one may have ended before it is validated.
    loop {
        let another = keystone.issue_token(&user, &project).await.unwrap();
        if validate(&keystone, &another).await == 200 {
            break;
        }
        assert!(issued.elapsed() < PATIENCE, "no token is valid");
    }
}

#[tokio::test]
async fn a_revoked_token_is_dead_at_once_and_no_other_is() {
    let keystone = shared();
    let (user, project) = member(keystone, "ned", "neds").await;
    let revoked = keystone.issue_token(&user, &project).await.unwrap();
    let kept = keystone.issue_token(&user, &project).await.unwrap();
    assert_eq!(validate(keystone, &revoked).await, 200);
    keystone.revoke_token(&revoked).await.unwrap();
    assert_eq!(validate(keystone, &revoked).await, 401);
    assert_eq!(validate(keystone, &kept).await, 200);
}

#[tokio::test]
async fn another_password_and_a_disabled_user_end_the_tokens_issued_before() {
    let keystone = shared();
    let (user, project) = member(keystone, "oda", "odas").await;
    let first = keystone.issue_token(&user, &project).await.unwrap();
    let changed = keystone.change_password(&user, "another").await.unwrap();
    assert_eq!(validate(keystone, &first).await, 401);
    assert!(keystone.issue_token(&user, &project).await.is_err());

    let second = keystone.issue_token(&changed, &project).await.unwrap();
    assert_eq!(validate(keystone, &second).await, 200);
    keystone.disable_user(&user).await.unwrap();
    assert_eq!(validate(keystone, &second).await, 401);
    assert!(keystone.issue_token(&changed, &project).await.is_err());

    keystone.enable_user(&user).await.unwrap();
    let third = keystone.issue_token(&changed, &project).await.unwrap();
    assert_eq!(validate(keystone, &third).await, 200);
}

#[tokio::test]
async fn an_application_credential_logs_in_to_its_project_by_id_or_by_name() {
    let keystone = shared();
    let (user, project) = member(keystone, "pam", "pams").await;
    let made = keystone
        .create_application_credential(&user, &project, "operator")
        .await
        .unwrap();
    let secret = made.secret.expose_secret();
    let by_id = json!({ "id": made.id, "secret": secret });
    let by_name = json!({
        "name": made.name,
        "secret": secret,
        "user": { "name": user.name, "domain": { "name": user.domain } },
    });
    let wrong = json!({ "id": made.id, "secret": "wrong" });
    let identity = |with: Value| json!({ "methods": ["application_credential"], "application_credential": with });
    for with in [by_id, by_name] {
        let body = login(keystone, identity(with), &Value::Null).await;
        assert_eq!(body["token"]["project"]["id"], *project);
    }
    let refused = post_login(keystone, identity(wrong), &Value::Null).await;
    assert_eq!(refused.status(), 401);
}

#[tokio::test]
async fn an_access_key_belongs_to_its_user_and_project() {
    let keystone = shared();
    let (user, project) = member(keystone, "quin", "quins").await;
    let key = keystone.create_access_key(&user, &project).await.unwrap();
    let token = keystone.issue_token(&user, &project).await.unwrap();
    let url = format!("{}/users/{}/credentials/OS-EC2", keystone.url(), user.id);
    let request = client().get(url).header("X-Auth-Token", token);
    let body: Value = request.send().await.unwrap().json().await.unwrap();
    let stored = &body["credentials"][0];
    assert_eq!(stored["access"], *key.access);
    assert_eq!(stored["secret"], *key.secret.expose_secret());
    assert_eq!(stored["tenant_id"], *project);
}

#[tokio::test]
async fn two_keystones_are_independent() {
    let first = shared();
    let second = Keystone::start(Config {
        region: "eu-nl".to_owned(),
        ..Config::default()
    })
    .unwrap();
    assert_ne!(first.url(), second.url());
    assert_eq!((first.region(), second.region()), ("eu-de", "eu-nl"));
    let (user, project) = member(&second, "rae", "raes").await;
    let token = second.issue_token(&user, &project).await.unwrap();
    assert_eq!(validate(&second, &token).await, 200);
    assert_eq!(validate(first, &token).await, 401);
    let scope = json!({ "project": { "id": project } });
    let body = login(&second, password(&user), &scope).await;
    assert_eq!(
        endpoint(&body, "identity"),
        [("public", "eu-nl", second.url())]
    );
}

#[test]
fn a_keystone_does_not_outlive_its_test_process_or_its_owner() {
    let (mut parent, pid) = start_part("parent_of_a_keystone", "pid: ");
    assert!(is_alive(&pid));
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(eventually(|| !is_alive(&pid)), "{pid} outlived its parent");

    let keystone = Keystone::start(Config::default()).unwrap();
    let pid = keystone.pid().to_string();
    assert!(is_alive(&pid));
    drop(keystone);
    assert!(!is_alive(&pid));
}

#[test]
#[ignore = "a part of a_keystone_does_not_outlive_its_test_process_or_its_owner"]
fn parent_of_a_keystone() {
    if !is_part() {
        return;
    }
    let keystone = Keystone::start(Config::default()).unwrap();
    println!("pid: {}", keystone.pid());
    thread::sleep(600 * SECOND);
}

#[test]
fn an_unsuitable_python_is_reported_with_the_remedy() {
    let folder = folder("pythons");
    let says = |name: &str, lines: &str| {
        let file = folder.join(name);
        fs::write(&file, format!("#!/bin/sh\nprintf '{lines}'\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let error = Environment::resolve(&file, &folder).unwrap_err();
        error.to_string()
    };
    let old = says("old", "3\\n9\\n3.9.18\\nlinux\\n/usr\\nyes\\n");
    assert!(
        old.contains(
            "is Python 3.9.18, and the testbed needs 3.11 or newer: set IMAGE_EXPORT_TESTBED_PYTHON"
        ),
        "{old}"
    );
    let bare = says("bare", "3\\n11\\n3.11.7\\nlinux\\n/usr\\nno\\n");
    assert!(bare.contains("apt-get install python3-venv"), "{bare}");
    let missing = Environment::resolve(Path::new("/no/such/python3"), &folder).unwrap_err();
    let missing = missing.to_string();
    assert!(
        missing.contains("/no/such/python3")
            && missing.contains("apt-get install python3 python3-venv"),
        "{missing}"
    );
    for error in [old, bare, missing] {
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

/// The Keystone of the tests that need nothing special; it ends with the process.
fn shared() -> &'static Keystone {
    static KEYSTONE: OnceLock<Keystone> = OnceLock::new();
    KEYSTONE.get_or_init(|| Keystone::start(Config::default()).unwrap())
}

/// A new user with [`PASSWORD`] in [`DOMAIN`] and the id of a new project for it.
async fn member(keystone: &Keystone, user: &str, project: &str) -> (User, String) {
    let project = keystone.create_project(project, DOMAIN).await.unwrap();
    let user = keystone
        .create_user(user, DOMAIN, PASSWORD, &[&project])
        .await
        .unwrap();
    (user, project)
}

/// The identity part of a login.
fn password(user: &User) -> Value {
    json!({ "methods": ["password"], "password": { "user": {
        "name": user.name,
        "domain": { "name": user.domain },
        "password": user.password.expose_secret(),
    } } })
}

async fn post_login(keystone: &Keystone, identity: Value, scope: &Value) -> Response {
    let mut auth = json!({ "identity": identity });
    if !scope.is_null() {
        auth["scope"] = scope.clone();
    }
    let url = format!("{}/auth/tokens", keystone.url());
    let request = client().post(url).json(&json!({ "auth": auth }));
    request.send().await.unwrap()
}

/// The body of the answer to a login that is granted.
async fn login(keystone: &Keystone, identity: Value, scope: &Value) -> Value {
    let answer = post_login(keystone, identity, scope).await;
    assert_eq!(answer.status(), 201);
    answer.json().await.unwrap()
}

/// The status of the answer when a token validates itself.
async fn validate(keystone: &Keystone, token: &str) -> u16 {
    let url = format!("{}/auth/tokens?nocatalog", keystone.url());
    let request = client()
        .get(url)
        .header("X-Auth-Token", token)
        .header("X-Subject-Token", token);
    request.send().await.unwrap().status().as_u16()
}

/// Interface, region and URL of the catalog's endpoints of this type.
fn endpoint<'b>(body: &'b Value, type_: &str) -> Vec<(&'b str, &'b str, &'b str)> {
    let services = body["token"]["catalog"].as_array().unwrap();
    services
        .iter()
        .filter(|service| service["type"] == type_)
        .flat_map(|service| service["endpoints"].as_array().unwrap())
        .map(|endpoint| {
            let field = |name: &str| endpoint[name].as_str().unwrap();
            (field("interface"), field("region"), field("url"))
        })
        .collect()
}

fn client() -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider()
            .install_default()
            .expect("no other provider is installed in this process");
    });
    Client::new()
}

/// A new empty folder.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("keystone")
        .join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}
