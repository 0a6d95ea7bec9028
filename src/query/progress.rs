//! Progress on standard error for `--wait`: on a terminal one line that is rewritten, else one line
//! per change.

use image_export_model::{Observation, Outcome};
use jiff::{Timestamp, tz::TimeZone};
use std::{
    io::{IsTerminal, Write, stderr},
    time::Duration,
};

pub(super) struct Progress {
    shown: bool,
    terminal: bool,
    last: String,
}

impl Progress {
    pub(super) fn new(shown: bool) -> Self {
        Self {
            shown,
            terminal: stderr().is_terminal(),
            last: String::new(),
        }
    }

    /// `next`: time until the next poll.
    pub(super) fn show(&mut self, observation: &Observation, polls: u32, next: Option<Duration>) {
        if !self.shown {
            return;
        }
        let state = match &observation.outcome {
            Outcome::Answered(answer) => answer.state.as_str(),
            Outcome::JobNotFound => "not found",
            Outcome::Throttled => "throttled",
            failed => failed.message().unwrap_or_default(),
        };
        let time = Timestamp::now().to_zoned(TimeZone::system());
        let time = time.strftime("%H:%M:%S");
        // A closed standard error is no reason to stop waiting.
        if self.terminal {
            let next = next.map_or(0, |next| next.as_secs());
            let _ = write!(
                stderr(),
                "\r\x1b[K{time} {state} (polled {polls} times, next poll in {next} s)"
            );
            let _ = stderr().flush();
        } else if state != self.last {
            let _ = writeln!(stderr(), "{time} {state}");
        }
        state.clone_into(&mut self.last);
    }

    /// Leaves the line that was rewritten.
    pub(super) fn end(&self) {
        if self.shown && self.terminal && !self.last.is_empty() {
            let _ = writeln!(stderr());
        }
    }
}
