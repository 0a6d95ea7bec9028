//! The two-minute tour: `cargo run --example quickstart`. See `--help`.
//!
//! It starts a real Kubernetes API server, a simulator of the cloud and the operator, brings five
//! objects to their ends, through failures of the cloud and a missing Secret, and explains each step.
//! `scenes` has the five objects, `environment` the parts that run, `screen` the display.

mod environment;
mod scenes;
mod screen;
mod target;

use anyhow::{Context, bail};
use clap::Parser;
use environment::{NAMESPACE, Operator, POLL_PERIOD};
use futures::{StreamExt, stream::BoxStream};
use image_export_api::{ImageExportJob, conditions::reasons};
use image_export_operator::cli;
use kube::runtime::{WatchStreamExt, watcher};
use scenes::{OUTAGE, Observed, Progress, SECRET_DELAY, Scene};
use screen::{Row, Screen};
use std::{
    env,
    fmt::Write as _,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use target::Target;
use testbed::ims::{Answer, OutageStart, Simulator};
use tokio::task::spawn_blocking;

/// First argument of this program when it runs as the operator: an example has no other program.
const OPERATOR_ARGUMENT: &str = "__operator";
/// Longest time from the creation of the objects to their ends. It takes about 45 s on an idle
/// machine.
const LIMIT: Duration = Duration::from_secs(180);
/// Period in which ages, counts and the operator's health are updated.
const REFRESH: Duration = Duration::from_millis(500);
/// The exit code of a shell for a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

/// A tour of the image-export-operator in about a minute.
///
/// Starts a Kubernetes API server, a simulated cloud and the operator on this machine, tracks five
/// image jobs to their ends, and explains each step. Everything is private to this run, listens
/// on loopback only, and ends with it.
///
/// It needs Rust and Go 1.26 or newer. The first run builds the API server, which takes about 5
/// minutes; it is kept for later runs. Instead of Go, KUBEBUILDER_ASSETS may name a folder with
/// etcd, kubectl and kube-apiserver (setup-envtest downloads one), or --context a cluster.
///
/// Exit code: 0 if all objects reached their expected ends, else 1; 130 after Ctrl-C before that.
#[derive(Parser)]
#[command(name = "quickstart")]
#[allow(clippy::doc_markdown, reason = "this is the text of --help")]
struct Arguments {
    /// Keep everything running until Ctrl-C, and print what to try with kubectl
    #[arg(long)]
    stay: bool,

    /// Run on the cluster of this context of your kubeconfig (kind, k3d, a development cluster) instead.
    /// It must not have the CRD yet. The CRD and the namespace image-export-quickstart are removed again
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
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
    let arguments = Arguments::parse();
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("another TLS provider is installed already")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut screen = Screen::new();
    let (mut used, mut done) = (None, false);
    let outcome = runtime.block_on(async {
        tokio::select! {
            // Dropping the tour ends what it has started.
            result = tour(&arguments, &mut screen, &mut used, &mut done) => result.map(|()| true),
            result = tokio::signal::ctrl_c() => result.map(|()| false).context("waiting for Ctrl-C"),
        }
    });
    // A step that Ctrl-C has interrupted may still run; what it has started ends with this process.
    runtime.shutdown_background();
    if let (Some(target), Some(context)) = (used, &arguments.context) {
        screen.note(&format!(
            "removing namespace {NAMESPACE} and the CRD from the cluster"
        ))?;
        target
            .remove()
            .with_context(|| format!("cleaning up in context {context}"))?;
    }
    if !outcome? {
        screen.print("\nStopped by Ctrl-C, and with it all that was started.\n")?;
    }
    Ok(if done {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INTERRUPTED)
    })
}

/// The whole tour. `used` is set to what it runs on; `done` is set once all objects have reached their ends.
async fn tour(
    arguments: &Arguments,
    screen: &mut Screen,
    used: &mut Option<Arc<Target>>,
    done: &mut bool,
) -> anyhow::Result<()> {
    let cluster = Arc::new(if let Some(context) = arguments.context.clone() {
        screen.note(&format!("looking at the cluster of context {context}"))?;
        blocking(move || Target::given(&context)).await?
    } else {
        screen.note("starting etcd and kube-apiserver (the first run builds them)")?;
        blocking(Target::start).await?
    });
    *used = Some(cluster.clone());
    screen.note(
        "applying CRD, ServiceAccount, RBAC of deploy/ (the operator runs here, in no Pod)",
    )?;
    on(&cluster, Target::install).await?;
    screen.note("starting a simulated cloud with five image jobs")?;
    let simulator = Arc::new(environment::start_simulator()?);
    for scene in Scene::ALL {
        simulator.put_job(scene.job());
    }
    screen.note(&format!(
        "starting the operator as that ServiceAccount, polling every {POLL_PERIOD} s (default 30)"
    ))?;
    let operator = on(&cluster, Operator::start).await?;
    screen.note("applying a Secret and five objects: see examples/quickstart/objects")?;
    put_secret(&cluster, &simulator, "credentials.yaml").await?;
    on(&cluster, environment::apply_objects).await?;

    let mut run = Run::new(&cluster, &simulator, &operator).await?;
    run.until_done(screen).await?;
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
    if !arguments.stay {
        let next = "\nNext: `cargo run --example quickstart -- --stay` keeps all of this up for your \
                    own kubectl.\nThe objects are in examples/quickstart/objects, the manifests in deploy/.\n";
        screen.print(next)?;
        return Ok(());
    }
    simulator.put_job(scenes::one_more());
    screen.print(&commands_to_try(&cluster, &operator))?;
    loop {
        tokio::time::sleep(REFRESH).await;
        operator.check()?;
    }
}

/// The run of the five scenes.
struct Run<'p> {
    cluster: &'p Arc<Target>,
    simulator: &'p Arc<Simulator>,
    operator: &'p Operator,
    watch: BoxStream<'static, watcher::Result<ImageExportJob>>,
    observed: [Observed; Scene::ALL.len()],
    outage_began: bool,
    secret_due: Option<Instant>,
    secret_created: bool,
}

impl<'p> Run<'p> {
    async fn new(
        cluster: &'p Arc<Target>,
        simulator: &'p Arc<Simulator>,
        operator: &'p Operator,
    ) -> anyhow::Result<Self> {
        let objects = environment::objects(cluster).await?;
        let watch = watcher(objects, watcher::Config::default())
            .default_backoff()
            .touched_objects()
            .boxed();
        Ok(Self {
            cluster,
            simulator,
            operator,
            watch,
            observed: Default::default(),
            outage_began: false,
            secret_due: None,
            secret_created: false,
        })
    }

    /// Until all objects have reached their expected ends.
    async fn until_done(&mut self, screen: &mut Screen) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut refresh = tokio::time::interval(REFRESH);
        loop {
            tokio::select! {
                // The watch recovers by itself; its errors need no reaction.
                Some(result) = self.watch.next() => if let Ok(object) = result { self.observe(object) },
                _ = refresh.tick() => {}
            }
            self.operator.check()?;
            self.count_polls();
            screen.show(&self.rows())?;
            self.trigger(screen).await?;
            let progress: Vec<Progress> = self
                .scenes()
                .map(|(s, observed)| s.progress(observed))
                .collect();
            if progress.iter().all(|one| *one == Progress::Met) {
                return Ok(());
            }
            if !progress.contains(&Progress::Open) || started.elapsed() > LIMIT {
                bail!(self.report(&progress));
            }
        }
    }

    fn scenes(&self) -> impl Iterator<Item = (Scene, &Observed)> {
        Scene::ALL.into_iter().zip(&self.observed)
    }

    fn observed(&self, scene: Scene) -> &Observed {
        // `Scene::ALL`, and with it `observed`, has the order of the declaration.
        &self.observed[scene as usize]
    }

    fn rows(&self) -> Vec<Row> {
        self.scenes()
            .map(|(scene, observed)| scene.row(observed))
            .collect()
    }

    fn observe(&mut self, object: ImageExportJob) {
        let name = object.metadata.name.clone();
        let index = Scene::ALL
            .iter()
            .position(|scene| name.as_deref() == Some(scene.name()));
        if let Some(index) = index {
            self.observed[index].see(object);
        }
    }

    fn count_polls(&mut self) {
        let requests = self.simulator.requests();
        for (scene, observed) in Scene::ALL.into_iter().zip(&mut self.observed) {
            observed.count_polls(&scene.key(), &requests);
        }
    }

    /// Starts the outage and creates the Secret when they are due.
    async fn trigger(&mut self, screen: &mut Screen) -> anyhow::Result<()> {
        if !self.outage_began && self.observed(Scene::Outage).job_status() == "RUNNING" {
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
        let missing = self.observed(Scene::LateSecret).reason() == reasons::CREDENTIALS_NOT_FOUND;
        if self.secret_due.is_none() && missing {
            self.secret_due = Some(Instant::now() + SECRET_DELAY);
        }
        if !self.secret_created && self.secret_due.is_some_and(|due| due <= Instant::now()) {
            self.secret_created = true;
            put_secret(self.cluster, self.simulator, "late-credentials.yaml").await?;
            screen.note("* the Secret otc-late has been created")?;
        }
        Ok(())
    }

    /// The objects that did not reach their expected end, for the error.
    fn report(&self, progress: &[Progress]) -> String {
        let met = progress.iter().filter(|one| **one == Progress::Met).count();
        let mut text = format!(
            "{met} of {} objects reached their expected end",
            progress.len()
        );
        for ((scene, observed), progress) in self.scenes().zip(progress) {
            let problem = match progress {
                Progress::Met => continue,
                Progress::Open => format!("not finished within {} s", LIMIT.as_secs()),
                Progress::Missed(problem) => problem.clone(),
            };
            let status = serde_json::to_string_pretty(&observed.status()).unwrap_or_default();
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
    cluster: &Arc<Target>,
    simulator: &Arc<Simulator>,
    file: &'static str,
) -> anyhow::Result<()> {
    let simulator = Arc::clone(simulator);
    on(cluster, move |cluster| {
        environment::apply_secret(cluster, &simulator, file)
    })
    .await
}

/// A step that blocks for seconds: on a thread of its own, so that Ctrl-C is handled meanwhile.
async fn blocking<T: Send + 'static>(
    step: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    spawn_blocking(step).await.context("a step has panicked")?
}

/// [`blocking`] with the cluster.
async fn on<T: Send + 'static>(
    cluster: &Arc<Target>,
    step: impl FnOnce(&Target) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let cluster = Arc::clone(cluster);
    blocking(move || step(&cluster)).await
}

fn commands_to_try(cluster: &Target, operator: &Operator) -> String {
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

  # the operator's message about each job
  kubectl get iej -o wide

  # one more job, and a pipeline that waits for its image
  kubectl apply -f {one_more} && \\
    kubectl wait iej/one-more --for=condition=Ready --timeout=60s

  # a status edited by hand is repaired without another poll
  kubectl patch iej golden-image --subresource=status --type=merge \\
    -p '{{\"status\":{{\"status\":\"FAIL\"}}}}' -o jsonpath='{{.status.status}}{{\"\\n\"}}' && sleep 1 && kubectl get iej golden-image

The operator's log: {log}
",
        kubeconfig = quoted(&cluster.admin_kubeconfig()),
        one_more = quoted(&environment::sample("one-more.yaml")),
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
