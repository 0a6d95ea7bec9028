//! What objects show while there is no answer: why the first one does not come, and that polls wait.

use crate::harness::{
    Launch, PASSWORD, PATIENCE, Team, eventually, in_progress, key, message, own_secret, running,
    summary,
};
use std::time::{Duration, Instant};
use testbed::ims::Answer;

/// A port on which nobody listens.
async fn closed_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let address = listener.expect("a port").local_addr();
    address.expect("an address").port()
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_names_the_identity_service_that_cannot_be_reached_and_what_the_image_service_answers()
 {
    let team = Team::start_for_graces("first-failure").await;
    let port = closed_port().await;
    let login = format!(
        "clouds: {{otc: {{auth: {{auth_url: 'http://127.0.0.1:{port}/v3', user_id: ieo, password: {PASSWORD}}}}}}}"
    );
    team.put_secret_key("no-login", "clouds.yaml", login).await;
    team.create_with("no-login", own_secret("no-login")).await;
    team.sim
        .script_forever(key("unavailable"), Answer::preset("unavailable"));
    team.create("unavailable").await;
    let host = team.sim.url().replace("http://", "");
    for (name, cause) in [
        (
            "no-login",
            format!("identity service 127.0.0.1:{port} cannot be reached: connection refused"),
        ),
        ("unavailable", format!("{host} answered 503")),
    ] {
        let status = eventually(&format!("{name} to name the cause"), || {
            let statuses = team.versions(name).into_iter();
            let mut statuses = statuses.filter_map(|object| object.status);
            statuses.find(|status| message(status).contains(&cause))
        })
        .await;
        // Before the grace of `PollFailed` is over.
        assert_eq!(summary(&status), in_progress("Pending"), "{name}");
        let begin = format!("Waiting for the first answer about job {name}: {cause}");
        assert!(message(&status).starts_with(&begin), "{}", message(&status));
        team.until_reason(name, "PollFailed").await;
        assert_eq!(team.reasons(name), ["Pending", "PollFailed"]);
        assert!(team.versions(name).len() <= 4, "few writes");
    }
    let credentials = |state| format!("imageexport_credentials{{state=\"{state}\"}}");
    let operator = team.operator();
    operator
        .until_metric(&credentials("login_failed"), 1.0)
        .await;
    assert!(operator.metric(&credentials("rejected")).await < 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_a_small_quota_keeps_waiting_say_so_until_they_are_answered() {
    // One poll in 10 s for all of them, by the operator's time.
    let objects = 45;
    let mut team = Team::without_operator("small-quota").await;
    team.start_operator_as(Launch::for_graces(), &["--polls-per-second", "0.1"]);
    let names: Vec<String> = (0..objects).map(|number| format!("job-{number}")).collect();
    for name in &names {
        team.follow(running(name)).await;
    }
    let started = Instant::now();
    let name = loop {
        let overdue = |name: &&String| team.reasons(name).contains(&"PollOverdue".to_owned());
        if let Some(name) = names.iter().find(overdue) {
            break name;
        }
        assert!(started.elapsed() < PATIENCE, "no poll is overdue");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let status = team.first_with_reason(name, "PollOverdue").await;
    assert_eq!(summary(&status), in_progress("PollOverdue"));
    assert_eq!(
        message(&status),
        format!(
            "The poll of job {name} is overdue: more polls are due for its endpoint and project than \
             --polls-per-second allows; raise that, or the poll periods."
        )
    );
    let event = "Warning PollOverdue: ";
    team.until_event(name, event).await;
    team.until_reason(name, "JobRunning").await;
    // It said why before.
    let pending = team.first_with_reason(name, "Pending").await;
    assert!(
        message(&pending).contains("--polls-per-second"),
        "{pending:?}"
    );
}
