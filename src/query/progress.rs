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
    out: Box<dyn Write + Send>,
}

impl Progress {
    pub(super) fn new(shown: bool) -> Self {
        Self {
            shown,
            terminal: stderr().is_terminal(),
            last: String::new(),
            out: Box::new(stderr()),
        }
    }

    /// `next`: time until something is done next; mostly that is a poll.
    pub(super) fn show(&mut self, observation: &Observation, polls: u32, next: Option<Duration>) {
        if !self.shown {
            return;
        }
        let state = match &observation.outcome {
            Outcome::Answered(answer) => answer.state.as_str(),
            Outcome::JobNotFound => "not found",
            Outcome::Throttled => "throttled",
            Outcome::Deferred(_) => "waiting",
            failed => failed.message().unwrap_or_default(),
        };
        let time = Timestamp::now().to_zoned(TimeZone::system());
        let time = time.strftime("%H:%M:%S");
        // A closed standard error is no reason to stop waiting.
        if self.terminal {
            let next = next.map_or(0, |next| next.as_secs());
            let _ = write!(
                self.out,
                "\r\x1b[K{time} {state} (polled {polls} times, next step in {next} s)"
            );
            let _ = self.out.flush();
        } else if state != self.last {
            let _ = writeln!(self.out, "{time} {state}");
        }
        state.clone_into(&mut self.last);
    }

    /// Leaves the line that was rewritten.
    pub(super) fn end(&mut self) {
        if self.shown && self.terminal && !self.last.is_empty() {
            let _ = writeln!(self.out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image_export_model::{Failure, FailureKind, JobAnswer, JobState, Stage};
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answered(state: JobState) -> Outcome {
        Outcome::Answered(Box::new(JobAnswer {
            state,
            job_type: None,
            image_id: None,
            fail_reason: None,
            error_code: None,
            percent: None,
            begin_time: None,
            end_time: None,
        }))
    }

    /// What is shown of these outcomes, without the times of day.
    fn shown(shown: bool, terminal: bool, outcomes: &[Outcome]) -> String {
        let out = Out::default();
        let mut progress = Progress {
            shown,
            terminal,
            last: String::new(),
            out: Box::new(out.clone()),
        };
        for (polls, outcome) in (1..).zip(outcomes) {
            let next = (polls > 1).then_some(Duration::from_secs(30));
            progress.show(&Observation::of(outcome.clone(), 1), polls, next);
        }
        progress.end();
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let mut shown = String::new();
        for part in text.split_inclusive(['\n', '\r']) {
            let (start, rest) = match part.strip_prefix("\x1b[K") {
                Some(rest) => ("\x1b[K", rest),
                None => ("", part),
            };
            let is_time = rest.get(8..9) == Some(" ") && rest[..8].matches(':').count() == 2;
            shown += start;
            shown += if is_time { &rest[9..] } else { rest };
        }
        shown
    }

    #[test]
    fn each_change_is_shown_or_each_poll_on_a_terminal() {
        let failure = Failure {
            kind: FailureKind::Network,
            stage: Stage::Query,
            message: "no answer".into(),
        };
        let outcomes = [
            Outcome::JobNotFound,
            Outcome::Throttled,
            Outcome::Failed(failure),
            answered(JobState::Running),
            answered(JobState::Running),
            answered(JobState::Success),
        ];
        assert_eq!(
            shown(true, false, &outcomes),
            "not found\nthrottled\nno answer\nRUNNING\nSUCCESS\n"
        );
        assert_eq!(
            shown(true, true, &outcomes[..2]),
            "\r\x1b[Knot found (polled 1 times, next step in 0 s)\
             \r\x1b[Kthrottled (polled 2 times, next step in 30 s)\n"
        );
        assert_eq!(shown(true, true, &[]), "");
        assert_eq!(shown(false, true, &outcomes), "");
        assert_eq!(shown(false, false, &outcomes), "");
    }
}
