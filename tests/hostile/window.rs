//! What the neighbours get within a window of time, and whether that is as much as without an attack.

use std::{fmt, time::Duration};

/// How much later than in the quiet window something may be.
const LATER: f64 = 1.2;
/// The same in absolute terms, thirty seconds by the operator's time; besides, what the machine was slow by in that
/// window, twice: for a call of the operator and for its turn before.
pub const NOISE: Duration = Duration::from_secs(3);
/// Polls that a neighbour may have fewer besides: one of each of its four jobs, at the edge of the window and for each
/// period in which the machine stood still.
const EDGE: f64 = 4.0;
const PERIOD: Duration = Duration::from_millis(500);

/// What the neighbours got.
#[derive(Debug)]
pub struct Window {
    pub name: &'static str,
    /// How slow the machine was: the longest wait of the test itself for a turn and a read from the API server.
    pub machine: Duration,
    /// Polls of the running jobs, by neighbour.
    pub polls: Vec<usize>,
    /// The longest time in which one of those jobs was not polled.
    pub longest_gap: Duration,
    /// From the creation of a new object to its first status, for the slowest one; `None`: one got none.
    pub first_status: Option<Duration>,
    /// From there to the Event of its end.
    pub event: Option<Duration>,
    /// The most memory that the process has had until the end of the window, in bytes.
    pub peak_memory: u64,
}

impl Window {
    /// In what the neighbours got less than in the quiet window.
    pub fn harm(&self, quiet: &Self) -> Vec<String> {
        let name = self.name;
        let mut harm = Vec::new();
        let still = self.machine.div_duration_f64(PERIOD).floor();
        for (n, (polls, quiet)) in self.polls.iter().zip(&quiet.polls).enumerate() {
            if as_f64(*polls) < as_f64(*quiet) / LATER - EDGE * (1.0 + still) {
                harm.push(format!(
                    "{name}: {polls} polls of neighbour {n} instead of {quiet}"
                ));
            }
        }
        let waits = [
            ("poll", Some(self.longest_gap), Some(quiet.longest_gap)),
            ("first status", self.first_status, quiet.first_status),
            ("Event", self.event, quiet.event),
        ];
        for (what, wait, quiet) in waits {
            let quiet = quiet.expect("the quiet window loses nothing");
            match wait {
                Some(wait) if wait <= quiet.mul_f64(LATER) + NOISE + 2 * self.machine => {}
                Some(wait) => harm.push(format!(
                    "{name}: a neighbour waited {wait:.1?} for a {what} instead of {quiet:.1?}"
                )),
                None => harm.push(format!("{name}: a neighbour got no {what}")),
            }
        }
        harm
    }
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("a few"))
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wait = |wait: Option<Duration>| {
            wait.map_or_else(|| "none".to_owned(), |wait| format!("{wait:.2?}"))
        };
        write!(
            f,
            "{:>16}: machine {:.2?}, polls {:?}, longest gap {:.2?}, first status {}, Event {}, peak {} MiB",
            self.name,
            self.machine,
            self.polls,
            self.longest_gap,
            wait(self.first_status),
            wait(self.event),
            self.peak_memory >> 20,
        )
    }
}
