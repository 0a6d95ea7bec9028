//! The command line: valid and invalid arguments, the log, and what the operator watches.

use crate::harness::{
    OPERATOR_NAMESPACE, Operator, PATIENCE, PROJECT, SCALE, Team, cluster, eventually,
};
use serde_json::Value;
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};
use testbed::{
    ims::Job,
    process::{Output, Supervised},
};

/// Each flag with its environment variable and invalid values.
const FLAGS: [(&str, &str, &[&str]); 16] = [
    (
        "--namespace",
        "IMAGE_EXPORT_NAMESPACES",
        &["", "Team", "a/b", "-a", "a-"],
    ),
    (
        "--watch-label-selector",
        "IMAGE_EXPORT_WATCH_LABEL_SELECTOR",
        &[],
    ),
    ("--leader-elect", "IMAGE_EXPORT_LEADER_ELECT", &[]),
    (
        "--leader-elect-namespace",
        "IMAGE_EXPORT_LEADER_ELECT_NAMESPACE",
        &["", "Team", "a/b", "-a", "a-"],
    ),
    (
        "--leader-elect-lease",
        "IMAGE_EXPORT_LEADER_ELECT_LEASE",
        &["", "Team", "a..b", "a/b", "-a", "a-", "a.-b"],
    ),
    (
        "--poll-period",
        "IMAGE_EXPORT_POLL_PERIOD",
        &["0", "86401", "-1", "30s", ""],
    ),
    (
        "--poll-mode",
        "IMAGE_EXPORT_POLL_MODE",
        &["Fixed", "sometimes"],
    ),
    (
        "--polls-per-second",
        "IMAGE_EXPORT_POLLS_PER_SECOND",
        &["0", "0.09", "1001", "-1", "NaN", "inf", "many"],
    ),
    (
        "--host-polls-per-second",
        "IMAGE_EXPORT_HOST_POLLS_PER_SECOND",
        &["0", "0.09", "10001", "many"],
    ),
    ("--allow-http", "IMAGE_EXPORT_ALLOW_HTTP", &[]),
    (
        "--allow-host",
        "IMAGE_EXPORT_ALLOWED_HOSTS",
        &["", "*", "https://example.com", "example.com:0"],
    ),
    (
        "--require-verified-tls",
        "IMAGE_EXPORT_REQUIRE_VERIFIED_TLS",
        &[],
    ),
    (
        "--job-path",
        "IMAGE_EXPORT_JOB_PATH",
        &["", "v2", "V1-JOBS"],
    ),
    (
        "--http-listen",
        "IMAGE_EXPORT_HTTP_LISTEN",
        &["8080", ":8080", "localhost:8080", "127.0.0.1:65536"],
    ),
    (
        "--log-format",
        "IMAGE_EXPORT_LOG_FORMAT",
        &["xml", "JSON", ""],
    ),
    (
        "--log-level",
        "IMAGE_EXPORT_LOG_LEVEL",
        &["info,,=x", "image_export_operator=loud", "a=b=c"],
    ),
];

fn operator() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_image-export-operator"));
    for (_, variable, _) in FLAGS {
        command.env_remove(variable);
    }
    // A command that wrongly passes must not find a cluster.
    command
        .env("KUBECONFIG", scratch("absent"))
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env_remove("RUST_BACKTRACE");
    command
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{}-{name}", std::process::id()))
}

/// Exit code, stdout and stderr of a command that ends by itself.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("the operator runs");
    (
        output.status.code(),
        String::from_utf8(output.stdout).expect("text"),
        String::from_utf8(output.stderr).expect("text"),
    )
}

/// A kubeconfig of an API server that does not exist.
fn kubeconfig_to_nowhere() -> PathBuf {
    let file = scratch("nowhere");
    let text = r#"{"apiVersion":"v1","kind":"Config","current-context":"c",
        "clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:9"}}],
        "users":[{"name":"c","user":{}}],
        "contexts":[{"name":"c","context":{"cluster":"c","user":"c"}}]}"#;
    std::fs::write(&file, text).expect("a file");
    file
}

#[test]
fn help_names_each_flag_with_its_environment_variable() {
    for arguments in [&["--help"][..], &["run", "--help"]] {
        let (code, help, errors) = run(operator().args(arguments));
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        for (flag, variable, _) in FLAGS {
            assert!(help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")));
            assert!(help.contains(&format!("[env: {variable}=")), "{variable}");
        }
        let variables = help.matches("[env: ").count();
        assert_eq!(variables, FLAGS.len(), "a flag that is not tested here");
    }
    let (code, version, _) = run(operator().arg("--version"));
    let wanted = format!("image-export-operator {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((code, version), (Some(0), wanted));
}

#[test]
fn crd_prints_the_committed_crd() {
    let (code, crd, errors) = run(operator().arg("crd"));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/crds/imageexportjobs.imageexport.dev.yaml"
    );
    assert_eq!(crd, std::fs::read_to_string(file).expect("the CRD"));
}

/// As with `image-export-operator crd | head -1`.
#[test]
fn a_reader_of_the_crd_may_have_read_enough() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let (code, _, errors) = run(operator().arg("crd").stdout(writer));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
}

#[test]
fn an_invalid_value_ends_with_code_2_and_the_flags_name() {
    for (flag, variable, values) in FLAGS {
        for value in values {
            let given = format!("{flag}={value}");
            let (code, output, errors) = run(operator().args(["run", &given]));
            assert_eq!((code, output.as_str()), (Some(2), ""), "{given}: {errors}");
            assert!(errors.contains(flag), "{given}: {errors}");

            if value.is_empty() {
                continue;
            }
            let (code, _, errors) = run(operator().arg("run").env(variable, value));
            assert_eq!(code, Some(2), "{variable}={value}: {errors}");
            assert!(errors.contains(flag), "{variable}={value}: {errors}");
        }
    }
    for (arguments, named) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["run", "--no-such-flag"], "--no-such-flag"),
        (&["no-such-command"], "no-such-command"),
        (&["--allow-http=perhaps"], "--allow-http"),
        (&["--poll-period=5", "crd"], "crd"),
        (
            &["run", "--poll-period=5", "--poll-period=6"],
            "--poll-period",
        ),
    ] {
        let (code, output, errors) = run(operator().args(arguments));
        assert_eq!((code, output.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(errors.contains(named), "{arguments:?}: {errors}");
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let absent = scratch("absent");
    for arguments in [&[][..], &["run"]] {
        let mut command = operator();
        command
            .args(arguments)
            .envs(FLAGS.map(|(_, variable, _)| (variable, "")));
        // It comes as far as the kubeconfig.
        let error = error_of(&mut command);
        assert!(
            error.contains(&format!("KUBECONFIG={}", absent.display())),
            "{error}"
        );
    }
    // So is KUBECONFIG, and there is no other.
    let nothing = scratch("no-home");
    let error = error_of(
        operator()
            .arg("run")
            .env("KUBECONFIG", "")
            .env("HOME", nothing),
    );
    assert!(
        error.contains("no cluster: set KUBECONFIG, or run inside one"),
        "{error}"
    );
}

#[test]
fn a_list_that_names_nothing_is_invalid() {
    for (flag, variable) in [
        ("--namespace", "IMAGE_EXPORT_NAMESPACES"),
        ("--allow-host", "IMAGE_EXPORT_ALLOWED_HOSTS"),
    ] {
        for value in [" ", ",", " , ,"] {
            let (code, _, errors) = run(operator().args(["run", flag, value]));
            assert!(
                code == Some(2) && errors.contains(flag),
                "{flag} {value:?}: {errors}"
            );
            let (code, _, errors) = run(operator().arg("run").env(variable, value));
            assert!(
                code == Some(2) && errors.contains(flag),
                "{variable}={value:?}: {errors}"
            );
        }
    }
}

/// Runs with valid arguments where they cannot work; returns the error.
fn error_of(command: &mut Command) -> String {
    let (code, output, errors) = run(command);
    assert_eq!((code, output.as_str()), (Some(1), ""), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    errors
}

#[test]
fn a_kubeconfig_that_cannot_be_used_is_named() {
    let absent = scratch("absent");
    let garbage = scratch("garbage");
    std::fs::write(&garbage, "clusters: [").expect("a file");
    let folder = scratch("folder");
    std::fs::create_dir_all(&folder).expect("a folder");
    for file in [absent, garbage, folder] {
        let error = error_of(operator().arg("run").env("KUBECONFIG", &file));
        let line = format!("Error: KUBECONFIG={}", file.display());
        assert!(error.lines().any(|error| error == line), "{error}");
    }
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let error = error_of(
        operator()
            .args(["run", "--http-listen", &address])
            .env("KUBECONFIG", kubeconfig_to_nowhere()),
    );
    assert!(
        error.contains(&format!("--http-listen {address}")),
        "{error}"
    );
    assert!(error.contains("in use"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_log_is_one_object_a_line_and_says_whose_it_is() {
    let team = Team::start("json").await;
    team.follow(Job::new(PROJECT, "logged")).await;
    team.until_reason("logged", "JobSucceeded").await;
    assert_eq!(team.operator().terminate(), 0);
    let log = team.operator().log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        for field in ["timestamp", "level", "message", "target"] {
            assert!(line[field].is_string(), "{field} in {line}");
        }
    }
    let messages: Vec<&str> = lines.iter().filter_map(|l| l["message"].as_str()).collect();
    assert_eq!(messages.first(), Some(&"starting"));
    assert_eq!(messages.last(), Some(&"stopped"));
    let warnings = lines.iter().filter(|line| {
        line["level"] == "WARN"
            && line["message"]
                .as_str()
                .is_some_and(|message| message.contains("--allow-http"))
    });
    assert_eq!(warnings.count(), 1);
    let polled = lines.iter().find(|line| line["message"] == "polled");
    let span = &polled.expect("a line about the poll")["spans"][0];
    let namespace = &team.namespace;
    assert_eq!(span["name"], "poll");
    assert_eq!(span["object"], format!("{namespace}/logged"));
    assert_eq!(span["credential"], format!("{namespace}/otc/otc"));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_may_be_given_by_environment_variables() {
    let team = Team::without_operator("environment").await;
    let kubeconfig = cluster()
        .kubeconfig_for_service_account(OPERATOR_NAMESPACE, "image-export-operator")
        .expect("a token for the operator");
    let log = scratch("text.log");
    let files = [scratch("absent"), kubeconfig];
    let mut command = operator();
    command
        .env("KUBECONFIG", std::env::join_paths(files).expect("a list"))
        .env("IMAGE_EXPORT_TIME_SCALE", SCALE.to_string())
        .env(
            "IMAGE_EXPORT_NAMESPACES",
            format!("default, {} ,,", team.namespace),
        )
        .env("IMAGE_EXPORT_POLL_PERIOD", "10")
        .env("IMAGE_EXPORT_POLLS_PER_SECOND", "5.5")
        .env("IMAGE_EXPORT_ALLOW_HTTP", "true")
        .env("IMAGE_EXPORT_ALLOWED_HOSTS", "")
        .env("HTTPS_PROXY", "")
        .env("NO_PROXY", "localhost,10.96.0.1,")
        .env("IMAGE_EXPORT_HTTP_LISTEN", "127.0.0.1:0")
        .env("IMAGE_EXPORT_LOG_FORMAT", "text")
        .env("IMAGE_EXPORT_LOG_LEVEL", "debug");
    // Without a subcommand it does what `run` does.
    let process = Supervised::spawn(&command, Output::Merged(log.clone())).expect("it starts");
    team.follow(Job::new(PROJECT, "by-environment")).await;
    team.until_reason("by-environment", "JobSucceeded").await;
    process.terminate();
    assert_eq!(process.wait(PATIENCE), Some(0));

    let text = std::fs::read_to_string(&log).expect("a log");
    let namespace = &team.namespace;
    assert!(!text.contains('\u{1b}'), "no colours in a file");
    for line in text.lines() {
        assert!(!line.starts_with('{'), "{line}");
    }
    for words in [
        " INFO image_export_operator",
        "starting version=",
        "watch{scope=\"namespace default\"}: image_export_operator::controller::watch: listed",
        &format!(
            " poll{{object={namespace}/by-environment credential={namespace}/otc/otc job=by-environment}}: "
        ),
    ] {
        assert!(text.contains(words), "{words} in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_namespaces_given_are_followed() {
    let (one, two) = (
        Team::without_operator("one").await,
        Team::without_operator("two").await,
    );
    let mut left_out = Team::without_operator("left-out").await;
    for team in [&one, &two, &left_out] {
        team.follow(Job::new(PROJECT, "here")).await;
    }
    let (first, second) = (one.namespace.as_str(), two.namespace.as_str());
    // A namespace given twice is watched once.
    let arguments = [
        "--namespace",
        first,
        "--namespace",
        second,
        "--namespace",
        first,
    ];
    let operator = Operator::start(cluster(), &arguments);
    one.until_reason("here", "JobSucceeded").await;
    two.until_reason("here", "JobSucceeded").await;
    let listed = eventually("both lists", || {
        let listed = operator.log().matches(r#""message":"listed""#).count();
        (listed >= 2).then_some(listed)
    })
    .await;
    assert_eq!(listed, 2);
    assert_eq!(left_out.polls("here"), 0);
    assert_eq!(left_out.writes("here"), 0);

    left_out.start_operator();
    left_out.until_reason("here", "JobSucceeded").await;
    assert_eq!((one.polls("here"), two.polls("here")), (1, 1));
}
