//! The election: what is sent to the API server, who leads when, and what readiness says.

use super::*;
use crate::controller::fake::{Reply as Answer, Sent, api_server};
use serde_json::{Value, json};
use std::sync::{Mutex, OnceLock};

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/ns/leases";

struct Started {
    election: Election,
    terms: Terms,
    health: Arc<Health>,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Started {
    /// A candidate whose requests are answered so.
    fn new(answer: impl FnMut(&Sent) -> Answer + Send + 'static) -> Self {
        let (client, sent) = api_server(answer);
        let lease = LeaseName {
            namespace: "ns".to_owned(),
            name: LEASE.to_owned(),
        };
        let health = Arc::<Health>::default();
        health.set_listed();
        let (election, terms) = Election::start(client, lease, health.clone());
        Self {
            election,
            terms,
            health,
            sent,
        }
    }

    fn term(&self) -> Option<u64> {
        let term = *self.terms.borrow();
        term.filter(|term| term.is_running())
            .map(|term| term.number)
    }

    fn lines(&self) -> Vec<String> {
        let sent = self.sent.lock().unwrap();
        sent.iter().map(|sent| sent.line.clone()).collect()
    }

    fn body(&self, index: usize) -> Value {
        self.sent.lock().unwrap()[index].body.clone()
    }
}

async fn wait(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// What was sent, as the API server stores it.
fn stored(sent: &Sent, version: u64) -> Answer {
    let mut lease = sent.body.clone();
    lease["metadata"]["resourceVersion"] = version.to_string().into();
    Answer::json(200, &lease)
}

#[tokio::test(start_paused = true)]
async fn a_missing_lease_is_created_renewed_and_given_up() {
    let mut version = 0;
    let started = Started::new(move |sent| {
        version += 1;
        if sent.line.starts_with("GET") {
            Answer::failure(404, &json!(null))
        } else {
            stored(sent, version)
        }
    });
    wait(7).await;
    assert_eq!(started.term(), Some(1));
    let (get, put) = (
        format!("GET {PATH}/{LEASE}"),
        format!("PUT {PATH}/{LEASE}?"),
    );
    let lines = started.lines();
    assert_eq!(
        lines,
        [
            get,
            format!("POST {PATH}?"),
            put.clone(),
            put.clone(),
            put.clone()
        ]
    );
    let (created, renewed) = (started.body(1), started.body(4));
    assert_eq!(created["metadata"], json!({ "name": LEASE }));
    assert_eq!(
        renewed["metadata"]["resourceVersion"], "4",
        "the version that it replaces"
    );
    for lease in [&created, &renewed] {
        assert_eq!(lease["spec"]["leaseDurationSeconds"], 15);
        assert_eq!(lease["spec"]["leaseTransitions"], 1);
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap();
        assert_eq!(holder.rsplit('_').next().unwrap().len(), 16, "{holder}");
    }
    assert_eq!(
        created["spec"]["acquireTime"],
        renewed["spec"]["acquireTime"]
    );

    let (terms, sent) = (started.terms.clone(), started.sent.clone());
    started.election.release().await;
    assert!(terms.borrow().is_none());
    let last = sent.lock().unwrap().last().unwrap().clone();
    assert_eq!(
        (last.line, &last.body["spec"]["holderIdentity"]),
        (put, &json!(""))
    );
    assert_eq!(last.body["spec"]["leaseDurationSeconds"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_another_is_taken_when_it_ends_and_foreign_fields_stay() {
    let held = json!({
        "metadata": { "name": LEASE, "resourceVersion": "5", "labels": { "a": "b" } },
        "spec": { "holderIdentity": "other", "leaseDurationSeconds": 15, "leaseTransitions": 7,
                  "renewTime": "2024-11-06T06:46:51.000000Z" },
    });
    let started = Started::new(move |sent| {
        if sent.line.starts_with("GET") {
            Answer::json(200, &held)
        } else {
            stored(sent, 6)
        }
    });
    wait(14).await;
    assert_eq!(started.term(), None);
    wait(2).await;
    assert_eq!(started.term(), Some(1));
    let puts = started.lines();
    let first = puts.iter().position(|line| line.starts_with("PUT"));
    // Each second.
    assert!((14..=16).contains(&first.unwrap()), "{puts:?}");
    let taken = started.body(first.unwrap());
    assert_eq!(taken["spec"]["leaseTransitions"], 8);
    assert_eq!(taken["metadata"]["labels"], json!({ "a": "b" }));
    assert_eq!(taken["metadata"]["resourceVersion"], "5");
    assert_eq!(started.health.ready(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_an_answer_stops_in_time_and_leads_a_new_term_later() {
    let started = Instant::now();
    let started = Started::new(move |sent| {
        let seconds = started.elapsed().as_secs();
        if (5..40).contains(&seconds) {
            Answer::Never
        } else if sent.line.starts_with("GET") && seconds < 5 {
            Answer::failure(404, &json!(null))
        } else if sent.line.starts_with("GET") {
            // Its own, as it was.
            Answer::json(200, &json!({ "metadata": { "name": LEASE }, "spec": {} }))
        } else {
            stored(sent, 1)
        }
    });
    // Renewed last after 4 s.
    wait(13).await;
    assert_eq!(started.term(), Some(1));
    wait(2).await;
    assert_eq!(started.term(), None);
    assert!(
        started.terms.borrow().is_none(),
        "and the control loop learns of it"
    );
    wait(32).await;
    assert_eq!(started.term(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn where_it_may_read_the_lease_but_not_write_it_is_never_ready() {
    let health = Arc::new(OnceLock::<Arc<Health>>::new());
    let was_ready = Arc::new(Mutex::new(Vec::new()));
    let (seen, shown) = (health.clone(), was_ready.clone());
    let started = Started::new(move |sent| {
        if sent.line.starts_with("GET") {
            return Answer::failure(404, &json!(null));
        }
        if let Some(health) = seen.get() {
            shown.lock().unwrap().push(health.ready().is_ok());
        }
        Answer::failure(403, &json!(null))
    });
    wait(1).await;
    health.set(started.health.clone()).unwrap();
    wait(5).await;
    let was_ready = was_ready.lock().unwrap().clone();
    assert!(
        was_ready.len() >= 3 && !was_ready.contains(&true),
        "{was_ready:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_with_a_time_that_nobody_can_read_is_said_to_be_in_the_way() {
    let held = json!({
        "metadata": { "name": LEASE, "resourceVersion": "5" },
        "spec": { "holderIdentity": "other", "leaseDurationSeconds": 15,
                  "renewTime": "9999-12-31T23:59:59.000000Z" },
    });
    let started = Started::new(move |_| Answer::json(200, &held));
    wait(60).await;
    assert_eq!(started.term(), None);
    let shown = started.health.ready().unwrap_err();
    assert!(shown.contains("it is not readable, delete it: "), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn without_rights_or_namespace_it_is_not_ready_and_says_why() {
    for (get, post, problem) in [
        (403, 403, "apply the Role in deploy/"),
        (404, 404, "see --leader-elect-namespace"),
    ] {
        let fixed = Arc::new(Mutex::new(false));
        let is_fixed = fixed.clone();
        let started = Started::new(move |sent| {
            let code = if sent.line.starts_with("GET") {
                get
            } else {
                post
            };
            if *is_fixed.lock().unwrap() {
                Answer::json(200, &json!({ "metadata": { "name": LEASE } }))
            } else {
                Answer::failure(code, &json!(null))
            }
        });
        wait(1).await;
        let shown = started.health.ready().unwrap_err();
        assert!(shown.contains("Lease ns/image-export-operator"), "{shown}");
        assert!(shown.ends_with(problem), "{shown}");
        *fixed.lock().unwrap() = true;
        wait(2).await;
        assert_eq!(started.health.ready(), Ok(()));
        assert_eq!(started.term(), Some(1));
    }
}
