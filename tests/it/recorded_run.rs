//! The recorded run of `docs/recorded-run.md`: one job from its creation to SUCCESS, with a cloud that
//! fails on the way, and the tool verdicts at each step. Each run of this test compares the document
//! with what it observes; `RECORD=1 cargo test --test it recorded_run` writes it anew.

use crate::harness::{Launch, Team, key, running};
use serde_json::Value;
use std::{fmt::Write as _, path::Path};
use testbed::{
    ims::{Answer, Gate},
    judges::Judges,
};

const DOCUMENT: &str = "docs/recorded-run.md";
const NAME: &str = "export";
/// The waits of `docs/conditions.md`.
const WAITS: [&str; 3] = [
    "condition=Ready",
    "condition=Succeeded=False",
    "jsonpath={.status.completionTime}",
];

/// One line of the record.
struct Step {
    what: &'static str,
    object: Value,
    /// STATUS, READY, REASON, IMAGE of `kubectl get`.
    columns: Vec<String>,
    /// Those of [`WAITS`] that return.
    met: Vec<&'static str>,
}

fn step(team: &Team, what: &'static str) -> Step {
    let get = |arguments: &[&str]| {
        team.kubectl(&[&["get", "iej", NAME], arguments].concat())
            .success()
            .expect("the object is there")
    };
    let columns = columns(&get(&[]), &["STATUS", "READY", "REASON", "IMAGE"]);
    let met = WAITS
        .into_iter()
        .filter(|wait| {
            let arguments = ["wait", "iej", NAME, "--timeout=0", "--for", wait];
            team.kubectl(&arguments)
                .run()
                .expect("kubectl runs")
                .status
                .success()
        })
        .collect();
    Step {
        what,
        object: serde_json::from_str(&get(&["-o", "json"])).expect("JSON"),
        columns,
        met,
    }
}

/// These columns of kubectl's table, in which each cell is aligned with its head.
fn columns(table: &str, wanted: &[&str]) -> Vec<String> {
    let (head, line) = table.split_once('\n').expect("a head and a line");
    let cell = |name: &&str| {
        let begin = head.find(*name).expect("such a column");
        let rest = &head[begin + name.len()..];
        let width = name.len() + rest.len() - rest.trim_start().len();
        let cell = line.get(begin..).unwrap_or_default();
        cell.get(..width).unwrap_or(cell).trim().to_owned()
    };
    wanted.iter().map(cell).collect()
}

/// Runs the lifecycle of the job, one step for each change. Also returns the host of the cloud.
async fn run_lifecycle() -> (Vec<Step>, String) {
    let mut team = Team::without_operator("recorded").await;
    team.sim.script_forever(key(NAME), Answer::preset("init"));
    team.follow(running(NAME)).await;
    let mut steps = vec![step(&team, "created; no operator runs yet")];

    team.start_operator_as(Launch::for_graces(), &[]);
    team.until_reason(NAME, "JobInitializing").await;
    steps.push(step(&team, "the cloud reports INIT"));

    team.sim
        .script_forever(key(NAME), Answer::preset("running"));
    team.until_reason(NAME, "JobRunning").await;
    steps.push(step(&team, "it reports RUNNING"));

    // The third poll is held, and the operator stopped, while kubectl reads.
    let unavailable = || Answer::preset("unavailable");
    let third = Gate::new();
    team.sim.script(
        key(NAME),
        [unavailable(), unavailable(), unavailable().held_by(&third)],
    );
    team.sim.script_forever(key(NAME), unavailable());
    third.arrived(1).await;
    team.operator().pause();
    steps.push(step(&team, "it answers 503 to two polls"));
    team.operator().resume();
    third.open();
    team.until_reason(NAME, "PollFailed").await;
    steps.push(step(&team, "it has answered 503 for more than 2 minutes"));

    team.sim
        .script_forever(key(NAME), Answer::preset("running"));
    team.until_reason(NAME, "JobRunning").await;
    steps.push(step(&team, "it reports RUNNING again"));

    team.sim
        .script_forever(key(NAME), Answer::preset("success"));
    team.until_reason(NAME, "JobSucceeded").await;
    steps.push(step(&team, "it reports SUCCESS"));
    let host = team.sim.url().replace("http://", "");
    (steps, host)
}

fn document(steps: &[Step]) -> String {
    let objects: Vec<Value> = steps.iter().map(|step| step.object.clone()).collect();
    let judges = Judges::shared().expect("the tools");
    let verdicts = judges.judge(&objects).expect("verdicts");
    let mut text = String::from(HEAD);
    let mut messages = String::new();
    for (n, (step, verdict)) in steps.iter().zip(verdicts).enumerate() {
        let cells: Vec<&str> = step
            .columns
            .iter()
            .map(|cell| if cell.is_empty() { "–" } else { cell })
            .collect();
        let met = match &*step.met {
            [] => "none returns".to_owned(),
            met => met
                .iter()
                .map(|wait| format!("`{wait}`"))
                .collect::<Vec<_>>()
                .join(", "),
        };
        let _ = writeln!(
            text,
            "| {n} | {} | {} | {met} | {:?} | {:?} | {:?} |",
            step.what,
            cells.join(" · "),
            verdict.kstatus.status,
            verdict.flux_kstatus.status,
            verdict.argo.status,
        );
        let _ = writeln!(
            messages,
            "{n}. kstatus: {}\n   Argo CD: {}",
            verdict.kstatus.message, verdict.argo.message
        );
    }
    format!("{text}\nThe messages of kstatus and Argo CD at each step:\n\n{messages}")
}

const HEAD: &str = "\
# A recorded run

One job from its creation to its end, on a real API server, with a simulated cloud that fails for
a while on the way, and how the tools read the object at each step. kstatus is
`sigs.k8s.io/cli-utils`, Flux's is its fork, which Helm 4 uses too; Argo CD's health is the shipped
`health.lua`, run as Argo CD runs it. Each run of the tests repeats this and compares:

```console
$ cargo test --test it recorded_run            # compares
$ RECORD=1 cargo test --test it recorded_run   # writes this page
```

The operator's durations are 20 times shorter there. The waits are `kubectl wait iej/export --for=…` with
`condition=Ready`, `condition=Succeeded=False` and `jsonpath={.status.completionTime}`; one that does not
return continues to wait.

| step | what happens | `kubectl get`: status · ready · reason · image | which `kubectl wait` returns | kstatus | Flux, Helm 4 | Argo CD |
|---|---|---|---|---|---|---|
";

#[tokio::test(flavor = "multi_thread")]
async fn the_recorded_run_is_that_of_the_document() {
    let (steps, host) = run_lifecycle().await;
    let seen = document(&steps).replace(&host, "ims.example.com");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    if std::env::var_os("RECORD").is_some() {
        std::fs::write(&path, &seen).expect("written");
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        recorded, seen,
        "{DOCUMENT} is out of date: RECORD=1 cargo test --test it recorded_run"
    );
}
