//! The two-minute tour: `cargo run --example quickstart`. See `--help`.
//!
//! It starts a real Kubernetes API server, a simulator of the cloud and the operator, lets five
//! objects meet what objects meet, and explains what is seen. `scenes` has the five stories, `stage`
//! the parts, `screen` the display.

mod scenes;
mod screen;
mod stage;

use anyhow::{Context, bail};
use clap::Parser;
use futures::{StreamExt, stream::BoxStream};
use image_export_api::{ImageExportJob, conditions::reasons};
use image_export_operator::cli;
use kube::runtime::{WatchStreamExt, watcher};
use scenes::{OUTAGE, SECRET_DELAY, Scene, Sight, Verdict};
use screen::{Row, Screen};
use stage::{NAMESPACE, Operator, POLL_PERIOD};
use std::{
    env,
    fmt::Write as _,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use testbed::{
    ims::{Answer, OutageStart, Simulator},
    kubernetes::{Binaries, Cluster},
};
use tokio::task::spawn_blocking;

/// First argument of this program when it is to be the operator: an example has no other program at
/// hand.
const OPERATOR_ARGUMENT: &str = "__operator";
/// Longest time from the creation of the objects to their ends. It takes about 45 s where machines
/// are not busy with other things.
const LIMIT: Duration = Duration::from_secs(180);
/// How often ages, counts and the operator's health are looked at.
const REFRESH: Duration = Duration::from_millis(500);
/// What a shell reports for a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

/// A tour of the image-export-operator in about a minute.
///
/// Starts a Kubernetes API server, a simulated cloud and the operator on this machine, follows five
/// image jobs to their ends, and explains what is seen. Everything is private to this run, listens
/// on loopback only, and ends with it.
///
/// It needs Rust and Go 1.26 or newer. The first run builds the API server, which takes about 5
/// minutes; it is kept for later runs. Instead of Go, KUBEBUILDER_ASSETS may name a folder with
/// etcd, kubectl and kube-apiserver.
///
/// Exit code: 0 if all objects reached their expected ends, else 1; 130 after Ctrl-C before that.
#[derive(Parser)]
#[command(name = "quickstart")]
#[allow(clippy::doc_markdown, reason = "this is the text of --help")]
struct Arguments {
    /// Keep everything running until Ctrl-C, and print what to try with kubectl
    #[arg(long)]
    stay: bool,
}

fn main() -> ExitCode {
    start().unwrap_or_else(|error| {
        eprintln!("quickstart: {error:#}");
        ExitCode::FAILURE
    })
}

fn start() -> anyhow::Result<ExitCode> {
    let mut arguments: Vec<_> = env::args_os().collect();
    if arguments
        .get(1)
        .is_some_and(|first| first == OPERATOR_ARGUMENT)
    {
        arguments.remove(1);
        return cli::main(arguments);
    }
    let Arguments { stay } = Arguments::parse();
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("another TLS provider is installed already")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut screen = Screen::new();
    let mut done = false;
    let outcome = runtime.block_on(async {
        tokio::select! {
            // Dropping the tour ends what it has started.
            result = tour(&mut screen, stay, &mut done) => result.map(|()| true),
            result = tokio::signal::ctrl_c() => result.map(|()| false).context("waiting for Ctrl-C"),
        }
    });
    // A step that Ctrl-C has cut short may still be under way; what it has started ends with us.
    runtime.shutdown_background();
    if !outcome? {
        screen.print("\nStopped by Ctrl-C, and with it all that was started.\n")?;
    }
    Ok(if done {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INTERRUPTED)
    })
}

/// The whole tour. `done` is set once all objects have reached their ends.
async fn tour(screen: &mut Screen, stay: bool, done: &mut bool) -> anyhow::Result<()> {
    screen.note("finding kube-apiserver, etcd, kubectl (the first run builds them)")?;
    let binaries = blocking(Binaries::locate).await?;
    screen.note("starting etcd and kube-apiserver")?;
    let cluster = Arc::new(blocking(|| Cluster::start_with(binaries)).await?);
    screen.note("applying deploy/: CRD, ServiceAccount, RBAC (no Pod runs here)")?;
    on(&cluster, stage::install).await?;
    screen.note("starting a simulated cloud with five image jobs")?;
    let simulator = Arc::new(stage::start_simulator()?);
    for scene in Scene::ALL {
        simulator.put_job(scene.job());
    }
    screen.note(&format!(
        "starting the operator as that ServiceAccount, polling every {POLL_PERIOD} s (default 30)"
    ))?;
    let operator = on(&cluster, Operator::start).await?;
    screen.note("applying a Secret and five objects: see examples/quickstart/objects")?;
    put_secret(&cluster, &simulator, "credentials.yaml").await?;
    on(&cluster, stage::apply_objects).await?;

    let mut play = Play::new(&cluster, &simulator, &operator).await?;
    play.run(screen).await?;
    *done = true;
    let seen = on(&cluster, |cluster| {
        cluster.kubectl(["get", "imageexportjobs"]).success()
    });
    screen.print(&format!(
        "\n$ kubectl get imageexportjobs\n{}\n",
        seen.await?
    ))?;
    screen.note(&format!(
        "5 of 5 reached their expected end in {:.0} s",
        screen.elapsed().as_secs_f64()
    ))?;
    if !stay {
        let next = "\nNext: `cargo run --example quickstart -- --stay` keeps all of this up for your \
                    own kubectl.\nThe objects are in examples/quickstart/objects, the manifests in deploy/.\n";
        screen.print(next)?;
        return Ok(());
    }
    simulator.put_job(scenes::one_more());
    screen.print(&what_to_try(&cluster, &operator))?;
    loop {
        tokio::time::sleep(REFRESH).await;
        operator.check()?;
    }
}

/// The objects on their way, and what happens to them.
struct Play<'p> {
    cluster: &'p Arc<Cluster>,
    simulator: &'p Arc<Simulator>,
    operator: &'p Operator,
    watch: BoxStream<'static, watcher::Result<ImageExportJob>>,
    sights: [Sight; Scene::ALL.len()],
    outage_began: bool,
    secret_due: Option<Instant>,
    secret_came: bool,
}

impl<'p> Play<'p> {
    async fn new(
        cluster: &'p Arc<Cluster>,
        simulator: &'p Arc<Simulator>,
        operator: &'p Operator,
    ) -> anyhow::Result<Self> {
        let objects = stage::objects(cluster).await?;
        let watch = watcher(objects, watcher::Config::default())
            .default_backoff()
            .touched_objects()
            .boxed();
        Ok(Self {
            cluster,
            simulator,
            operator,
            watch,
            sights: Default::default(),
            outage_began: false,
            secret_due: None,
            secret_came: false,
        })
    }

    /// Until all objects have reached their expected ends.
    async fn run(&mut self, screen: &mut Screen) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut refresh = tokio::time::interval(REFRESH);
        loop {
            tokio::select! {
                // The watch repairs itself; an error of it is news of nothing.
                Some(seen) = self.watch.next() => if let Ok(object) = seen { self.see(object) },
                _ = refresh.tick() => {}
            }
            self.operator.check()?;
            self.look_at_the_cloud();
            screen.show(&self.rows())?;
            self.cue(screen).await?;
            let verdicts: Vec<Verdict> = self.scenes().map(|(s, sight)| s.verdict(sight)).collect();
            if verdicts.iter().all(|verdict| *verdict == Verdict::Met) {
                return Ok(());
            }
            if !verdicts.contains(&Verdict::Open) || started.elapsed() > LIMIT {
                bail!(self.report(&verdicts));
            }
        }
    }

    fn scenes(&self) -> impl Iterator<Item = (Scene, &Sight)> {
        Scene::ALL.into_iter().zip(&self.sights)
    }

    fn sight(&self, scene: Scene) -> &Sight {
        // `Scene::ALL`, and with it `sights`, has the order of the declaration.
        &self.sights[scene as usize]
    }

    fn rows(&self) -> Vec<Row> {
        self.scenes()
            .map(|(scene, sight)| scene.row(sight))
            .collect()
    }

    fn see(&mut self, object: ImageExportJob) {
        let name = object.metadata.name.clone();
        let place = Scene::ALL
            .iter()
            .position(|scene| name.as_deref() == Some(scene.name()));
        if let Some(place) = place {
            self.sights[place].see(object);
        }
    }

    fn look_at_the_cloud(&mut self) {
        let requests = self.simulator.requests();
        for (scene, sight) in Scene::ALL.into_iter().zip(&mut self.sights) {
            sight.ask(&scene.key(), &requests);
        }
    }

    /// Starts the outage and brings the Secret when it is their turn.
    async fn cue(&mut self, screen: &mut Screen) -> anyhow::Result<()> {
        if !self.outage_began && self.sight(Scene::Outage).word() == "RUNNING" {
            self.outage_began = true;
            let answer = Answer::preset("unavailable");
            let key = Scene::Outage.key();
            self.simulator.outage(key, answer, OUTAGE, OutageStart::Now);
            screen.note(&format!(
                "* the cloud answers 503 about {} for {} s",
                Scene::Outage.name(),
                OUTAGE.as_secs()
            ))?;
        }
        let missing = self.sight(Scene::LateSecret).reason() == reasons::CREDENTIALS_NOT_FOUND;
        if self.secret_due.is_none() && missing {
            self.secret_due = Some(Instant::now() + SECRET_DELAY);
        }
        if !self.secret_came && self.secret_due.is_some_and(|due| due <= Instant::now()) {
            self.secret_came = true;
            put_secret(self.cluster, self.simulator, "late-credentials.yaml").await?;
            screen.note("* the Secret otc-late has been created")?;
        }
        Ok(())
    }

    /// What went wrong, for the error.
    fn report(&self, verdicts: &[Verdict]) -> String {
        let met = verdicts.iter().filter(|v| **v == Verdict::Met).count();
        let mut text = format!(
            "{met} of {} objects reached their expected end",
            verdicts.len()
        );
        for ((scene, sight), verdict) in self.scenes().zip(verdicts) {
            let problem = match verdict {
                Verdict::Met => continue,
                Verdict::Open => format!("not finished within {} s", LIMIT.as_secs()),
                Verdict::Missed(problem) => problem.clone(),
            };
            let status = serde_json::to_string_pretty(&sight.status()).unwrap_or_default();
            let _ = write!(
                text,
                "\n\n{}: {problem}. Its status:\n{status}",
                scene.name()
            );
        }
        let log = self.operator.last_lines();
        let _ = write!(text, "\n\nLast lines of the operator's log:\n{log}");
        text
    }
}

async fn put_secret(
    cluster: &Arc<Cluster>,
    simulator: &Arc<Simulator>,
    file: &'static str,
) -> anyhow::Result<()> {
    let simulator = Arc::clone(simulator);
    on(cluster, move |cluster| {
        stage::apply_secret(cluster, &simulator, file)
    })
    .await
}

/// A step that blocks for seconds: apart from the runtime, so that Ctrl-C is heard meanwhile.
async fn blocking<T: Send + 'static>(
    step: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    spawn_blocking(step).await.context("a step has panicked")?
}

/// [`blocking`] with the cluster.
async fn on<T: Send + 'static>(
    cluster: &Arc<Cluster>,
    step: impl FnOnce(&Cluster) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let cluster = Arc::clone(cluster);
    blocking(move || step(&cluster)).await
}

fn what_to_try(cluster: &Cluster, operator: &Operator) -> String {
    let kubectl = cluster.kubectl_path();
    let path = match kubectl.parent() {
        Some(folder) if !is_on_path("kubectl") => {
            format!("  export PATH=\"$PATH\":{}\n", quoted(folder))
        }
        _ => String::new(),
    };
    format!(
        "
Everything stays up until Ctrl-C. In another terminal (the namespace is {NAMESPACE}):

{path}  export KUBECONFIG={kubeconfig}

  # the operator's own words about each job
  kubectl get iej -o wide

  # one more job, and a pipeline that waits for its image
  kubectl apply -f {one_more} && \\
    kubectl wait iej/one-more --for=condition=Ready --timeout=60s

  # a status edited by hand is put right without asking the cloud again
  kubectl patch iej golden-image --subresource=status --type=merge \\
    -p '{{\"status\":{{\"status\":\"FAIL\"}}}}' -o jsonpath='{{.status.status}}{{\"\\n\"}}' && sleep 1 && kubectl get iej golden-image

The operator's log: {log}
",
        kubeconfig = quoted(cluster.admin_kubeconfig()),
        one_more = quoted(&stage::sample("one-more.yaml")),
        log = operator.log().display(),
    )
}

/// For a shell. Plain paths stay as they are.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn is_on_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}
