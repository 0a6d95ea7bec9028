//! This test binary, run again as a process of its own that can be killed.

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Set in a process that plays a part in another test.
const PART: &str = "TESTBED_TEST_PART";

/// Starts this test binary as a process that runs only the ignored test `name`, and returns it
/// with the line that follows `marker` on its stdout.
pub fn start_part(name: &str, marker: &str) -> (Child, String) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--ignored", "--nocapture"])
        .env(PART, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let report = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once(marker)?.1.to_owned()));
    (child, report.expect("the part ended without its report"))
}

/// Whether this process was started by [`start_part`]; `cargo test -- --ignored` was not.
pub fn is_part() -> bool {
    env::var_os(PART).is_some()
}

/// Whether the process exists; one that ended but was not waited for does not count.
pub fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).is_ok_and(|stat| {
        !stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}

/// Longest wait for what has to happen: much longer than any machine needs.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Waits for `condition`; whether it came true.
pub fn eventually(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}
