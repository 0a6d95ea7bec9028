//! No secret comes out of what an identity service repeats.

use super::{
    CANARY, credential, error_of,
    fake_cloud::{Cloud, PROJECT, accept, client, granted, query, respond, running},
};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

/// An identity service that repeats the password, or the token that it issues, in what messages name.
#[tokio::test]
async fn a_secret_that_the_identity_service_repeats_is_not_shown() {
    const TOKEN: &str = "issued-canary-9b1c";
    for echo in [CANARY, TOKEN, "CANARY-7F3A", "x issued-CANARY-9b1c x"] {
        for (more, project, regions, shown) in [
            (
                "region_name: eu-de",
                PROJECT,
                [echo, "a"],
                "set region_name to one of: ",
            ),
            (
                "region_name: eu-de",
                echo,
                ["eu-de", "a"],
                "signs in to project ",
            ),
        ] {
            let login = move |n| {
                let catalog = Cloud::catalog("http://127.0.0.1:1", &regions);
                let mut response = granted(n, project, HOUR, &catalog);
                let headers = response.headers_mut();
                headers.insert("x-subject-token", TOKEN.parse().unwrap());
                response
            };
            let cloud = Cloud::start(login, |_| running()).await;
            let (client, credential) = (client(), cloud.credential(more));
            // Once by the login itself, once by what is remembered of it.
            for _ in 0..2 {
                let poll = query(&client, &credential).await;
                let message = error_of(&poll).message.to_lowercase();
                assert!(
                    message.contains(shown) && message.contains("[redacted]"),
                    "{message}"
                );
                assert!(!message.contains("canary"), "{message}");
            }
        }
    }
}

/// A host may be a secret: here the address of the fake cloud.
#[tokio::test]
async fn a_host_that_holds_a_secret_is_not_shown() {
    const HOST: &str = "127.0.0.1";
    for (password, token) in [(HOST, "issued-token"), ("some-password", HOST)] {
        let login = move |n| {
            let mut response = accept(n);
            let headers = response.headers_mut();
            headers.insert("x-subject-token", token.parse().unwrap());
            response
        };
        let cloud = Cloud::start(login, |_| respond(503, "")).await;
        let url = &cloud.url;
        let port = url.rsplit_once(':').unwrap().1;
        let credential = credential(&format!(
            "clouds: {{otc: {{auth: {{auth_url: '{url}', user_id: u, password: {password}}}, image_endpoint_override: '{url}'}}}}"
        ))
        .unwrap();
        let poll = query(&client(), &credential).await;
        let shown = format!("[redacted]:{port}");
        assert_eq!(poll.endpoint.as_deref(), Some(&*shown));
        let message = format!("{shown} answered 503 without a code of the image service");
        assert_eq!(poll.outcome.message(), Some(&*message));
    }
    // The identity service, and the image service of an access key.
    let cloud = Cloud::start(|_| respond(500, ""), |_| respond(401, "")).await;
    let url = &cloud.url;
    for entry in [
        format!("auth: {{auth_url: '{url}', user_id: u, password: {HOST}}}"),
        format!("ak: AK, sk: {HOST}, image_endpoint_override: '{url}'"),
    ] {
        let credential = credential(&format!("clouds: {{otc: {{{entry}}}}}")).unwrap();
        let poll = query(&client(), &credential).await;
        let message = poll.outcome.message().unwrap();
        assert!(
            !message.contains(HOST) && message.contains("[redacted]:"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn an_agency_whose_name_is_a_secret_is_not_shown() {
    for status in [400, 403] {
        let login = move |n| match n {
            1 => accept(n),
            _ => respond(status, ""),
        };
        let cloud = Cloud::start(login, |_| running()).await;
        let agency = "agency_name: x canary-7f3a, agency_domain_name: OTC2, delegated_project: p";
        let poll = query(&client(), &cloud.credential(agency)).await;
        let message = &error_of(&poll).message;
        assert!(message.contains("agency x [redacted]"), "{message}");
    }
}
