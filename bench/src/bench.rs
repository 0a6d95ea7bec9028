//! What the rows share: the cloud, the objects, and runs in pairs.

use crate::{
    cloud::{Cloud, Counts},
    cluster::{Layout, Objects},
    peers::{Launch, Program, Starter, Subject},
    process::{Costs, Running},
    results::{Results, Run},
    server::Server,
};
use anyhow::ensure;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// What kopf is tried with: at more, starting takes it longer than a row lasts.
const MOST_OF_KOPF: u32 = 10_000;
/// Statuses of all objects take less.
const LONGEST: Duration = Duration::from_mins(30);
/// With more of a processor, the cloud may have shaped what it should measure.
const MOST_OF_CLOUD: f64 = 0.7;

pub struct Bench {
    pub cloud: Cloud,
    pub objects: Objects,
    pub starter: Starter,
    pub subjects: Vec<Subject>,
    pub results: Results,
    pub runs: u64,
    /// How long a run is measured.
    pub window: Duration,
    /// Objects of the rows that have many.
    pub many: u32,
}

impl Bench {
    /// Measures each subject `runs` times, in the order A B B A, and keeps the results. A run that fails is a result, too.
    pub async fn paired(
        &mut self,
        row: &str,
        case: &str,
        subjects: &[Subject],
        mut measure: impl AsyncFnMut(&mut Self, Subject) -> anyhow::Result<Value>,
    ) -> anyhow::Result<()> {
        for number in 0..self.runs {
            let mut order = subjects.to_vec();
            if number % 2 == 1 {
                order.reverse();
            }
            for subject in order {
                let figures = measure(self, subject).await;
                self.keep(row, case, number, &subject.to_string(), figures)?;
            }
        }
        Ok(())
    }

    /// Keeps a result, and shows it.
    pub fn keep(
        &mut self,
        row: &str,
        case: &str,
        number: u64,
        subject: &str,
        figures: anyhow::Result<Value>,
    ) -> anyhow::Result<()> {
        let (figures, void) = match figures {
            Ok(figures) => {
                let share = figures["cloud_share"].as_f64().unwrap_or(0.0);
                let void = format!("the cloud used {share:.2} of a processor");
                (figures, (share > MOST_OF_CLOUD).then_some(void))
            }
            Err(error) => (json!({}), Some(format!("{error:#}"))),
        };
        let shown = void.as_deref();
        let shown = shown.map_or(String::new(), |void| format!(" void: {void}"));
        let progress = format!("{}/{}", number + 1, self.runs);
        eprintln!("{row}, {case}, {progress}, {subject}: {figures}{shown}");
        self.results.add(&Run {
            session: String::new(),
            row: row.to_owned(),
            case: case.to_owned(),
            subject: subject.to_owned(),
            number,
            void,
            figures,
        })
    }

    /// Those that bear so many objects.
    pub fn subjects_for(&self, count: u32) -> Vec<Subject> {
        let subjects = self.subjects.iter().copied();
        let bears = |subject: &Subject| subject.program != Program::Kopf || count <= MOST_OF_KOPF;
        subjects.filter(bears).collect()
    }

    /// Makes these the objects, each with the status of a running job, as the operator writes it: peers take that for
    /// theirs.
    pub async fn ensure_known(&mut self, layout: Layout) -> anyhow::Result<()> {
        self.objects.ensure(layout).await?;
        let running = self.start(Subject::OPERATOR, &Launch::every(600))?;
        let started = Instant::now();
        while self.objects.with_a_status().await? < layout.count {
            running.check()?;
            ensure!(started.elapsed() < LONGEST, "no first status of all");
            sleep(Duration::from_secs(5)).await;
        }
        self.no_writes(&running, Duration::from_mins(5)).await
    }

    pub fn start(&self, subject: Subject, launch: &Launch) -> anyhow::Result<Running> {
        let kubeconfig = if subject.is_operator() {
            self.objects.operator_kubeconfig()?
        } else {
            self.objects.peer_kubeconfig()?
        };
        self.starter.start(subject, launch, &kubeconfig)
    }

    /// Waits until the cloud has answered so many requests more.
    pub async fn polls(
        &self,
        running: &Running,
        polls: u64,
        within: Duration,
    ) -> anyhow::Result<()> {
        let wanted = self.cloud.counts().requests + polls;
        let started = Instant::now();
        while self.cloud.counts().requests < wanted {
            running.check()?;
            let answered = polls + self.cloud.counts().requests;
            let answered = answered.saturating_sub(wanted);
            ensure!(
                started.elapsed() < within,
                "{answered} of {polls} polls within {} s",
                within.as_secs()
            );
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until nothing has been written for 2 s.
    pub async fn no_writes(&self, running: &Running, within: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut before = self.objects.server().await?;
        loop {
            sleep(Duration::from_secs(2)).await;
            running.check()?;
            let now = self.objects.server().await?;
            let written = now - before;
            if written.status_writes + written.other_writes == 0.0 {
                return Ok(());
            }
            let seconds = within.as_secs();
            ensure!(started.elapsed() < within, "still writes after {seconds} s");
            before = now;
        }
    }

    /// Begins to measure.
    pub async fn begin(&self, running: &Running) -> anyhow::Result<Measure> {
        let server = self.objects.server().await?;
        Ok(Measure {
            server,
            counts: self.cloud.counts(),
            cloud_cpu: Cloud::cpu()?,
            costs: running.costs()?,
            started: Instant::now(),
        })
    }

    /// What has happened since [`Self::begin`].
    pub async fn end(&self, running: &Running, measure: &Measure) -> anyhow::Result<Measured> {
        let seconds = measure.started.elapsed().as_secs_f64();
        running.check()?;
        let cost = running.costs()?.since(&measure.costs);
        let counts = self.cloud.counts();
        let cloud_cpu = Cloud::cpu()?.saturating_sub(measure.cloud_cpu);
        let polls = counts.requests - measure.counts.requests;
        Ok(Measured {
            seconds,
            cpu: cost.cpu.as_secs_f64(),
            switches: number(cost.switches),
            polls: number(polls),
            throttled: number(counts.throttled - measure.counts.throttled),
            early: number(counts.early - measure.counts.early),
            cloud_share: cloud_cpu.as_secs_f64() / seconds,
            server: self.objects.server().await? - measure.server,
        })
    }
}

/// The state in which measuring began.
pub struct Measure {
    server: Server,
    counts: Counts,
    cloud_cpu: Duration,
    costs: Costs,
    started: Instant,
}

pub struct Measured {
    pub seconds: f64,
    /// Seconds of the subject.
    pub cpu: f64,
    pub switches: f64,
    pub polls: f64,
    pub throttled: f64,
    pub early: f64,
    pub cloud_share: f64,
    pub server: Server,
}

/// Counts are small enough.
#[allow(clippy::cast_precision_loss)]
pub fn number(count: u64) -> f64 {
    count as f64
}
