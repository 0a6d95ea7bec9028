//! The IMS simulator as a program: see `--help`.

use anyhow::{Context, ensure};
use clap::Parser;
use secrecy::{ExposeSecret, SecretString};
use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    time::Duration,
};
use testbed::ims::{AccessKey, Config, End, Job, Quota, Simulator, Start, User};

const PROJECT: &str = "ac234de25c6741d2b1273da49eea1b9e";
const PROJECT_NAME: &str = "eu-de_demo";
const DOMAIN: &str = "demo";
const DEFAULT_TOKEN: &str = "demo-token";

/// Simulates the asynchronous job query of Open Telekom Cloud's Image Management Service, with as
/// much identity service as logins need. It has no real account. With --keystone it calls that
/// Keystone, else no other service. docs/simulator.md is its manual.
#[derive(Parser)]
#[command(version, after_long_help = AFTER_HELP)]
struct Args {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Allow an address that other machines can reach. The admin API has no password.
    #[arg(long)]
    allow_remote: bool,

    /// Token accepted for all projects, in the header X-Auth-Token.
    #[arg(long, default_value = DEFAULT_TOKEN, hide_env_values = true, env = "IMS_SIMULATOR_TOKEN")]
    token: SecretString,

    /// User who may log in (domain "demo", project "eu-de_demo").
    #[arg(long, default_value = "demo")]
    user: String,

    /// Password of that user.
    #[arg(
        long,
        default_value = "demo",
        hide_env_values = true,
        env = "IMS_SIMULATOR_PASSWORD"
    )]
    password: SecretString,

    /// Id of the project that the demo jobs and the user belong to.
    #[arg(long, default_value = PROJECT)]
    project: String,

    /// Region named by the catalog.
    #[arg(long, default_value = "eu-de")]
    region: String,

    /// Lifetime of tokens from logins, in seconds.
    #[arg(long, default_value_t = 86_400)]
    token_lifetime: u64,

    /// Least length of tokens from logins, in characters.
    #[arg(long, default_value_t = 0)]
    token_length: usize,

    /// Access key whose signatures are accepted for all projects; needs --secret-key.
    #[arg(long, requires = "secret_key")]
    access_key: Option<String>,

    /// Secret key that belongs to it.
    #[arg(long, hide_env_values = true, env = "IMS_SIMULATOR_SECRET_KEY")]
    secret_key: Option<SecretString>,

    /// Seconds that an access key is locked after the sixth wrong signature in a row.
    #[arg(long, default_value_t = 300)]
    key_lock: u64,

    /// Seconds that an account is locked after the sixth wrong password in a row; 0: not at all.
    #[arg(long, default_value_t = 300)]
    account_lock: u64,

    /// Job queries of each project that pass in a period, and its seconds, for example 200/5.
    #[arg(long, value_parser = quota)]
    quota: Option<Quota>,

    /// URL of a real Keystone, ending in /v3, that validates tokens which this program has not issued.
    #[arg(long)]
    keystone: Option<String>,

    /// Create the demo jobs listed below.
    #[arg(long)]
    demo: bool,

    /// Print each request.
    #[arg(long)]
    log: bool,
}

const AFTER_HELP: &str = r#"What it serves:
  GET    /v1/{project_id}/jobs/{job_id}   the job query: X-Auth-Token, or a signature
  GET    /v1/cloudimages/job/{job_id}     the same, the project by token or X-Project-Id
  POST   /v3/auth/tokens[?nocatalog]      login by password, application_credential, token or
                                          assume_role; the token comes in X-Subject-Token
  DELETE /v3/auth/tokens                  revokes the token named by X-Subject-Token
  any other path                          404 APIGW.0101, as from a wrong endpoint

Demo jobs (--demo), all of the project given by --project:
  ff8080814dbd65d7014dbe0d84db0013        the API reference's example, SUCCESS
  demo-export                             INIT 3 s, RUNNING 12 s, SUCCESS; starts with its first query
  demo-fail                               INIT 3 s, RUNNING 6 s, FAIL; starts with its first query
  demo-stuck                              RUNNING for ever

Admin API (JSON, no password; 204 without content, 400 or 422 with the reason):
  POST   /admin/jobs                      creates a job or starts it anew
         {"project_id":"P","job_id":"J"}  and, each optional:
         "job_type", "image_id", "init_seconds":0, "run_seconds":0,
         "start":"creation"|"first_query", "layout":"current"|"reference",
         "end":"success"|"success_without_image"|"fail"|"never", "error_code", "fail_reason"
  DELETE /admin/jobs/{project}/{job}      forgets a job
  POST   /admin/answers                   answers in place of the service
         {"on":ON,"answer":ANSWER,"times":3}       the next 3 requests (default 1)
         {"on":ON,"answer":ANSWER,"forever":true}  from then on
  DELETE /admin/answers                   takes all scripted answers and outages back
  POST   /admin/outage                    ANSWER (default 503) for some seconds
         {"on":ON,"seconds":30,"start":"now"|"first_query","answer":ANSWER}
  GET    /admin/gates                     how many requests each gate holds
  POST   /admin/gates/{name}              opens a gate
  POST   /admin/users                     {"name":"U","domain":"D","password":"..."} and, optional:
         "id", "domain_id", "projects":[{"id":"P","name":"N"}], "default_project":"P"
  POST   /admin/application-credentials   {"id","name","secret","user_id","project_id"}
  DELETE /admin/application-credentials/{id}
  POST   /admin/agencies                  {"name":"A","domain":"D"} and, optional: "domain_id",
         "projects", "trusted_domains":["D2"], "trusted_users":["U-id"]
  POST   /admin/keys                      {"access_key":"AK","secret_key":"SK"} and, optional:
         "projects":["P"] (absent: all), "security_token"
  PATCH  /admin/keys/{access_key}         {"enabled":false}
  DELETE /admin/keys/{access_key}         forgets the key
  DELETE /admin/locks                     ends the locks of keys and accounts
  POST   /admin/tokens                    {"token":"T","project_id":"P"} (absent: all projects)
  PATCH  /admin/tokens                    {"lifetime_seconds":60,"length":5000} of later logins
  DELETE /admin/tokens                    revokes all tokens that logins gave out
  POST   /admin/clock                     {"ahead_seconds":1000}: the clock for signatures
  POST   /admin/quota                     {"requests":200,"seconds":5} for each project
  DELETE /admin/quota                     ends it
  GET    /admin/counters                  sums, and polls by job
  GET    /admin/requests                  the latest requests
  GET    /admin/presets                   names of the faults that ANSWER may use

  ON      "jobs" | "login" | {"job":{"project_id":"P","job_id":"J"}}
  ANSWER  {"preset":"throttled"}, {"status":503,"headers":{"Retry-After":"5"},"body":"..."} or
          {"raw":"bytes in place of HTTP"}; each may add "delay_seconds":1.5, "gate":"G" (held
          until that gate is opened), "drip_seconds":1 (before each byte), "cut_after":20 (bytes),
          "repeated":1000 or "endless":true (the body); without preset, status and raw the
          service answers: {"delay_seconds":5}

Example: the next two queries of any job find the service down.
  curl -X POST $URL/admin/answers -H 'Content-Type: application/json' \
    -d '{"on":"jobs","answer":{"preset":"unavailable"},"times":2}'"#;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.log {
        tracing_subscriber::fmt()
            .with_target(false)
            .with_ansi(std::io::stdout().is_terminal())
            .init();
    }
    ensure!(
        args.listen.ip().is_loopback() || args.allow_remote,
        "--listen {} is reachable from other machines and the admin API has no password: \
         add --allow-remote if that is meant",
        args.listen
    );
    let mut user =
        User::new(&args.user, DOMAIN, args.password).project(&args.project, PROJECT_NAME);
    user.default_project = Some(args.project.clone());
    let simulator = Simulator::start(Config {
        listen: args.listen,
        allow_remote: args.allow_remote,
        region: args.region,
        token_lifetime: Duration::from_secs(args.token_lifetime),
        token_length: args.token_length,
        users: vec![user],
        keystone: args.keystone,
        quota: args.quota,
        key_lock: Duration::from_secs(args.key_lock),
        account_lock: (args.account_lock > 0).then(|| Duration::from_secs(args.account_lock)),
    })?;
    if let (Some(access_key), Some(secret_key)) = (args.access_key, args.secret_key) {
        simulator.add_key(AccessKey::new(&access_key, secret_key));
    }
    // The demo token is public; any other one stays out of the output.
    let shown_token = match args.token.expose_secret() {
        DEFAULT_TOKEN => DEFAULT_TOKEN,
        _ => "$IMS_SIMULATOR_TOKEN",
    };
    simulator.add_token(args.token, None);
    if args.demo {
        for job in demo_jobs(&args.project) {
            simulator.put_job(job);
        }
    }
    greet(&simulator, &args.project, shown_token, args.demo)
        .context("cannot write to standard output")?;
    wait_for_the_end()
}

/// Reads `REQUESTS/SECONDS`.
fn quota(text: &str) -> anyhow::Result<Quota> {
    let (requests, seconds) = text
        .split_once('/')
        .context("a quota is of the form REQUESTS/SECONDS")?;
    let per = Duration::try_from_secs_f64(seconds.parse()?)?;
    ensure!(!per.is_zero(), "a period has to last");
    let requests = requests.parse()?;
    Ok(Quota { requests, per })
}

fn demo_jobs(project: &str) -> [Job; 4] {
    let demo = |id: &str| {
        Job::new(project, id)
            .starts(Start::FirstQuery)
            .init_for(Duration::from_secs(3))
    };
    [
        Job::reference_example().of_project(project),
        demo("demo-export").running_for(Duration::from_secs(12)),
        demo("demo-fail")
            .running_for(Duration::from_secs(6))
            .fails("IMG.0148", "The OBS bucket does not exist."),
        Job::new(project, "demo-stuck").ends(End::Never),
    ]
}

fn greet(simulator: &Simulator, project: &str, token: &str, demo: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let url = simulator.url();
    writeln!(out, "The IMS simulator listens on {url}")?;
    writeln!(out, "Identity service (auth_url): {}", simulator.auth_url())?;
    if demo {
        writeln!(out, "\nTry:")?;
        writeln!(
            out,
            "  curl -s -H \"X-Auth-Token: {token}\" {url}/v1/{project}/jobs/demo-export"
        )?;
    } else {
        writeln!(out, "\nCreate a job, then query it:")?;
        writeln!(
            out,
            "  curl -s -H 'Content-Type: application/json' {url}/admin/jobs \\\n    \
             -d '{{\"project_id\":\"{project}\",\"job_id\":\"j1\",\"run_seconds\":10}}'"
        )?;
        writeln!(
            out,
            "  curl -s -H \"X-Auth-Token: {token}\" {url}/v1/{project}/jobs/j1"
        )?;
    }
    writeln!(out, "\nCtrl-C ends it; --help explains the rest.")?;
    out.flush()
}

/// Returns at Ctrl-C or, so that no simulator is left behind in a pod, at SIGTERM.
fn wait_for_the_end() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminated =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result?,
            _ = terminated.recv() => {}
        }
        Ok(())
    })
}
