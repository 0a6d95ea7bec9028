//! Progress lines for steps that take long. They go to the real stderr: the test harness keeps
//! what `eprintln!` writes until a test fails, so a build of minutes would look like a hang.

use std::{
    io::Write,
    time::{Duration, Instant},
};

/// A step that reports itself while it lasts.
pub(crate) struct Progress {
    what: String,
    every: Duration,
    start: Instant,
    reports: u32,
}

impl Progress {
    /// `what` completes "testbed: …"; nothing is printed yet.
    pub(crate) fn new(what: impl Into<String>, every: Duration) -> Self {
        Self {
            what: what.into(),
            every,
            start: Instant::now(),
            reports: 0,
        }
    }

    /// Time since the step began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Prints a line if the next one is due; call it at least as often as lines are wanted.
    pub(crate) fn tick(&mut self) {
        if self.elapsed() >= self.every * (self.reports + 1) {
            self.reports += 1;
            say(&format!("still {}, {}", self.what, seconds(self.elapsed())));
        }
    }
}

/// One line on stderr, past the test harness.
pub(crate) fn say(line: &str) {
    // A closed stderr is no reason to fail a test.
    let _ = writeln!(std::io::stderr(), "testbed: {line}");
}

/// `75 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}
