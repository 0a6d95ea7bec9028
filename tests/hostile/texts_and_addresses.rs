//! Attacks by what a host says about itself, and by where it is said to be.

use crate::harness::{Launch, PROJECT, Team, condition, own_secret};
use std::time::Duration;
use testbed::ims::Job;

/// Addresses of machines, links and metadata services, in notations that are easily overlooked.
const INTERNAL: [&str; 7] = [
    "[fd00:ec2::23]",
    "[fd20:ce::254]",
    // SIIT, Teredo and 6to4 with 127.0.0.1 or 169.254.169.254 in them.
    "[::ffff:0:a9fe:a9fe]",
    "[2001:0:a9fe:a9fe::]",
    "[2002:7f00:1::]",
    "[fec0::1]",
    "240.0.0.1",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_notation_of_an_internal_address_leads_a_poll_there() {
    let mut team = Team::without_operator("addresses").await;
    for (n, address) in INTERNAL.into_iter().enumerate() {
        let name = format!("address-{n}");
        let clouds = team
            .clouds_yaml()
            .replace(&team.sim.url(), &format!("'https://{address}'"));
        team.put_secret_key(&name, "clouds.yaml", clouds).await;
        team.create_with(&name, own_secret(&name)).await;
    }
    let launch = Launch {
        allow_http: false,
        ..Launch::default()
    };
    // The administrator's list does not keep them out, so that the check of addresses has to.
    let hosts = INTERNAL.join(",");
    team.start_operator_as(launch, &["--allow-host", &hosts]);

    let mut passed = Vec::new();
    for (n, address) in INTERNAL.into_iter().enumerate() {
        let name = format!("address-{n}");
        let refused = team.until_reason(&name, "EndpointNotAllowed");
        if tokio::time::timeout(Duration::from_secs(5), refused)
            .await
            .is_err()
        {
            passed.push((address, team.reasons(&name)));
        }
    }
    assert!(passed.is_empty(), "{passed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn invisible_characters_of_an_answer_are_not_shown() {
    // Tags, a joiner, a direction override, a variation selector, a filler, an interlinear annotation.
    const INVISIBLE: &str = "\u{e0041}\u{e007f}\u{200d}\u{202e}\u{fe0f}\u{e0100}\u{3164}\u{115f}\u{fff9}\u{00ad}\u{2064}";
    let team = Team::start("invisible").await;
    let reason = format!("No{INVISIBLE} bucket");
    let code = format!("IMG{INVISIBLE}.0148");
    team.follow(Job::new(PROJECT, "hidden").fails(code, reason))
        .await;
    let status = team.until_reason("hidden", "JobFailed").await;
    let ready = condition(&status, "Ready").expect("it is there");
    let shown = format!(
        "{:?} {:?} {:?}",
        status.fail_reason, status.error_code, ready.message
    );
    let events = team.until_event("hidden", "Warning JobFailed").await;
    for text in [&shown, &format!("{events:?}")] {
        // `Debug` escapes what cannot be seen.
        assert!(!text.contains("\\u{"), "{text}");
        assert!(!text.contains(|c| INVISIBLE.contains(c)), "{text}");
        assert!(text.contains("No") && text.contains("bucket"), "{text}");
    }
}
