//! Children of the testbed end with the process that started them.

mod common;

use common::{PATIENCE, eventually, is_alive, is_part, start_part};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};
use testbed::process::{Output, Supervised, last_lines};

#[test]
fn no_child_survives_kill_9_of_its_parent() {
    let (mut parent, pids) = start_part("parent_of_a_child_and_a_grandchild", "pids: ");
    let pids: Vec<&str> = pids.split(' ').collect();
    assert_eq!(pids.len(), 2);
    assert!(pids.iter().all(|pid| is_alive(pid)), "{pids:?}");

    parent.kill().unwrap();
    parent.wait().unwrap();

    assert!(
        eventually(|| !pids.iter().any(|pid| is_alive(pid))),
        "{pids:?} outlived their parent"
    );
}

#[test]
#[ignore = "a part of no_child_survives_kill_9_of_its_parent"]
fn parent_of_a_child_and_a_grandchild() {
    if !is_part() {
        return;
    }
    // From a thread that is gone when the parent is killed, as in a test harness.
    let child = thread::spawn(|| {
        sh(
            "parent",
            "trap '' TERM HUP INT; sleep 1000 & echo $!; wait; sleep 1000",
        )
    })
    .join()
    .unwrap();
    let grandchild = first_line(child.output().stdout());
    println!("pids: {} {grandchild}", child.pid());
    thread::sleep(4 * PATIENCE);
}

#[test]
fn a_dropped_child_is_gone_at_once() {
    let child = sh(
        "dropped",
        "trap '' TERM; echo ready; sleep 1000; sleep 1000",
    );
    first_line(child.output().stdout());
    let pid = child.pid().to_string();
    assert!(is_alive(&pid));
    drop(child);
    assert!(!is_alive(&pid));
}

#[test]
fn a_child_that_ends_by_itself_reports_its_code_and_takes_its_children_along() {
    let child = sh("ending", "sleep 1000 & echo $!; exit 7");
    assert_eq!(child.wait(PATIENCE), Some(7));
    assert!(!child.is_running());
    let orphan = first_line(child.output().stdout());
    assert!(eventually(|| !is_alive(&orphan)));
}

#[test]
fn a_supervisor_that_is_killed_takes_the_program_along() {
    let child = sh("orphaned", "echo ready; sleep 1000; sleep 1000");
    first_line(child.output().stdout());
    let pid = child.pid().to_string();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let supervisor = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap()
        .trim();
    let killed = Command::new("/bin/sh")
        .args(["-c", r#"kill -s KILL "$1""#, "sh", supervisor])
        .status()
        .unwrap();
    assert!(killed.success());
    assert_eq!(child.wait(PATIENCE), Some(137));
    assert!(eventually(|| !is_alive(&pid)));
}

#[test]
fn signals_reach_the_program_itself() {
    let polite = sh(
        "polite",
        "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done",
    );
    first_line(polite.output().stdout());
    assert_eq!(polite.wait(Duration::from_millis(50)), None);
    polite.terminate();
    assert_eq!(polite.wait(PATIENCE), Some(3));
    assert_eq!(last_lines(polite.output().stdout(), 1), "bye");

    let killed = sh("killed", "trap '' TERM; echo ready; sleep 1000; sleep 1000");
    first_line(killed.output().stdout());
    killed.terminate();
    killed.kill();
    assert_eq!(killed.wait(PATIENCE), Some(137));
}

#[test]
fn the_command_is_run_as_given() {
    let folder = folder("as-given");
    let output = Output::Split {
        stdout: folder.join("out"),
        stderr: folder.join("err"),
    };
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", r#"echo "$PWD|$GIVEN|$*"; cat; echo oops >&2"#, "name"])
        .args(["two words", "$HOME", "'"])
        .env("GIVEN", "a value")
        .current_dir("/");
    let child = Supervised::spawn(&command, output.clone()).unwrap();
    assert_eq!(child.wait(PATIENCE), Some(0), "its stdin is not empty");
    assert_eq!(
        fs::read_to_string(output.stdout()).unwrap(),
        "/|a value|two words $HOME '\n"
    );
    assert_eq!(fs::read_to_string(output.stderr()).unwrap(), "oops\n");
}

#[test]
fn a_program_that_does_not_exist_is_named_in_the_log() {
    let log = folder("missing").join("log");
    let command = Command::new("/no/such/program");
    let child = Supervised::spawn(&command, Output::Merged(log.clone())).unwrap();
    assert_eq!(child.wait(PATIENCE), Some(127));
    let log = last_lines(&log, 5);
    assert!(log.contains("/no/such/program"), "{log}");
}

fn sh(name: &str, script: &str) -> Supervised {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    Supervised::spawn(&command, Output::Merged(folder(name).join("log"))).unwrap()
}

/// A new empty folder.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("supervision")
        .join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The first line of a file, once it is there.
fn first_line(file: &Path) -> String {
    let line = || {
        let text = fs::read_to_string(file).ok()?;
        Some(text.split_once('\n')?.0.to_owned())
    };
    assert!(eventually(|| line().is_some()));
    line().unwrap()
}
