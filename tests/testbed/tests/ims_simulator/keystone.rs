//! Tokens checked at a real Keystone.

use crate::{client, error, message, query_with};
use serde_json::json;
use std::time::Duration;
use testbed::{
    ims::{Agency, Config, Credential, Job, Simulator},
    keystone::{self, Keystone},
};

fn simulator_at(keystone: &str) -> Simulator {
    Simulator::start(Config {
        keystone: Some(keystone.to_owned()),
        ..Config::default()
    })
    .unwrap()
}

/// Starting blocks.
async fn start_keystone(token_lifetime: Duration) -> Keystone {
    let config = keystone::Config {
        token_lifetime,
        ..keystone::Config::default()
    };
    tokio::task::spawn_blocking(|| Keystone::start(config).unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_token_is_valid_for_its_project_until_keystone_rejects_it() {
    let keystone = start_keystone(Duration::from_secs(3600)).await;
    let simulator = simulator_at(keystone.url());
    assert_eq!(simulator.auth_url(), keystone.url());
    let here = keystone.create_project("eu-de", "OTC0001").await.unwrap();
    let user = keystone
        .create_user("kay", "OTC0001", "correct horse", &[&here])
        .await
        .unwrap();
    let job = Job::new(&here, "j");
    let key = job.key();
    simulator.put_job(job);
    simulator.put_job(Job::new("elsewhere", "j2"));

    let token = keystone.issue_token(&user, &here).await.unwrap();
    assert_eq!(query_with(&simulator, &key, &token).await.status(), 200);
    let newer = client().get(simulator.newer_job_url(&key));
    let newer = newer.header("X-Auth-Token", &token).send().await.unwrap();
    assert_eq!(newer.status(), 200);
    let elsewhere = testbed::ims::JobKey::new("elsewhere", "j2");
    assert_eq!(
        error(query_with(&simulator, &elsewhere, &token).await).await,
        (400, "IMG.0030".to_owned())
    );
    assert_eq!(
        simulator.requests()[0].credential,
        Credential::KeystoneToken
    );
    assert_eq!(simulator.counters().keystone_validations, 3);

    // Keystone has no agencies: that call is the simulator's, with Keystone's word for the caller.
    simulator.add_agency(
        Agency::new("export", "OTC0002")
            .project("theirs", "eu-de")
            .trusts_user(&user.id),
    );
    let assume = |token: &str| {
        let url = format!("{}/v3/auth/tokens", simulator.url());
        client().post(url).header("X-Auth-Token", token).json(&json!({ "auth": {
            "identity": { "methods": ["assume_role"], "assume_role": { "domain_name": "OTC0002", "agency_name": "export" } },
            "scope": { "project": { "id": "theirs" } },
        } })).send()
    };
    assert_eq!(assume(&token).await.unwrap().status(), 201);

    keystone.revoke_token(&token).await.unwrap();
    assert_eq!(
        error(query_with(&simulator, &key, &token).await).await,
        (401, "APIGW.0301".to_owned())
    );
    assert_eq!(assume(&token).await.unwrap().status(), 401);
    assert_eq!(
        error(query_with(&simulator, &key, "made-up").await).await,
        (401, "APIGW.0301".to_owned())
    );
}

#[tokio::test]
async fn while_keystone_is_unavailable_the_gateway_answers_503_and_accepts_fixed_tokens() {
    // A port that is taken, so that nobody else gets it, and on which nobody listens.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    let loopback = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    nobody.bind(loopback).unwrap();
    let url = format!("http://{}/v3", nobody.local_addr().unwrap());
    let simulator = simulator_at(&url);
    simulator.add_token(crate::TOKEN, None);
    let key = crate::finished_job(&simulator);
    let (status, code, text) = message(query_with(&simulator, &key, "perhaps").await).await;
    assert_eq!((status, code.as_str()), (503, "APIGW.0613"));
    assert_eq!(text, "The IAM service is currently unavailable.");
    assert_eq!(
        query_with(&simulator, &key, crate::TOKEN).await.status(),
        200
    );
}

#[test]
fn a_url_that_is_not_of_a_keystone_is_rejected() {
    for url in [
        "https://127.0.0.1:5000/v3",
        "http://127.0.0.1:5000",
        "nonsense",
    ] {
        let config = Config {
            keystone: Some(url.to_owned()),
            ..Config::default()
        };
        let refusal = Simulator::start(config).err().unwrap().to_string();
        assert!(refusal.contains("http://127.0.0.1:5000/v3"), "{refusal}");
    }
}
