//! The display: notes with the seconds, and a table that is redrawn in place on a terminal.
//! Elsewhere (a file, a pipe, CI) each change is one line.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    time::{Duration, Instant},
};

// Plain ANSI sequences, understood by every terminal of the last decades.
const ERASE_BELOW: &str = "\x1b[J";
const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";
/// Lines longer than the terminal are cut: wrapped ones would make the count of lines to go up wrong.
const CUT_LINES: &str = "\x1b[?7l";
const WRAP_LINES: &str = "\x1b[?7h";

/// One object as shown. Empty texts are shown as kubectl shows them: not at all.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub name: &'static str,
    pub status: String,
    pub ready: String,
    pub reason: String,
    /// The message of `Ready`.
    pub message: String,
    /// The quick start's explanation.
    pub explanation: &'static str,
    /// Since the object was created.
    pub age: Option<Duration>,
    /// HTTP status of the cloud's latest answer to a poll.
    pub answer: Option<u16>,
    /// Number of polls.
    pub polls: u64,
    /// Number of writes of the status.
    pub writes: usize,
    /// Whether the object has reached its expected end.
    pub met: bool,
}

/// Standard output, with a clock that starts when it is made.
pub struct Screen {
    start: Instant,
    is_terminal: bool,
    /// The table on the terminal, above the cursor.
    drawn: String,
    /// What was last printed of each row where there is no table: kubectl's line and the explanation.
    printed: Vec<(String, &'static str)>,
}

impl Screen {
    pub fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            start: Instant::now(),
            is_terminal: io::stdout().is_terminal() && !dumb,
            drawn: String::new(),
            printed: Vec::new(),
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// One line with the time; a table moves down below it.
    pub fn note(&mut self, text: &str) -> io::Result<()> {
        let line = format!("{} {text}\n", self.clock());
        let table = self.drawn.clone();
        self.redraw(&line, table)
    }

    /// Text as it is.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        // The table above stays and is not redrawn any more.
        self.drawn.clear();
        put(text)
    }

    /// The rows as they are now.
    pub fn show(&mut self, rows: &[Row]) -> io::Result<()> {
        if self.is_terminal {
            self.redraw("", table(rows))
        } else {
            let clock = self.clock();
            self.printed.resize(rows.len(), (String::new(), ""));
            let mut text = String::new();
            for ((line, explanation), row) in self.printed.iter_mut().zip(rows) {
                let (new_line, new_explanation) = (line_of(row), row.explanation);
                if row.reason.is_empty() || (&new_line, new_explanation) == (line, *explanation) {
                    continue;
                }
                let _ = writeln!(text, "{clock} {new_line}");
                if new_explanation != *explanation {
                    let _ = writeln!(
                        text,
                        "{:>width$} {new_explanation}",
                        "=",
                        width = clock.len()
                    );
                }
                (*line, *explanation) = (new_line, new_explanation);
            }
            put(&text)
        }
    }

    fn clock(&self) -> String {
        format!("[{:5.1} s]", self.elapsed().as_secs_f64())
    }

    /// Puts `above` and a table in place of the table that is there.
    fn redraw(&mut self, above: &str, table: String) -> io::Result<()> {
        let up = match self.drawn.lines().count() {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r{ERASE_BELOW}"),
        };
        let below = if table.is_empty() {
            String::new()
        } else {
            format!("{CUT_LINES}{table}{WRAP_LINES}")
        };
        self.drawn = table;
        put(&format!("{up}{above}{below}"))
    }
}

/// In one piece, so that a terminal shows no half-drawn table. Not `print!`, which panics on a closed
/// pipe.
fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Three lines for each row: what kubectl shows and two counts, the operator's message, the explanation.
fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "\n{BOLD}  {:<14} {:<8} {:<7} {:<20} {:>4} {:>6} {:>5} {:>6}{PLAIN}\n",
        "NAME", "STATUS", "READY", "REASON", "AGE", "ANSWER", "POLLS", "WRITES"
    );
    for row in rows {
        let age = row
            .age
            .map_or_else(String::new, |age| format!("{}s", age.as_secs()));
        let answer = row
            .answer
            .map_or_else(String::new, |answer| answer.to_string());
        let _ = writeln!(
            text,
            "{} {BOLD}{:<14}{PLAIN} {:<8} {:<7} {:<20} {age:>4} {answer:>6} {:>5} {:>6}",
            if row.met { "✓" } else { " " },
            row.name,
            row.status,
            row.ready,
            row.reason,
            row.polls,
            row.writes,
        );
        let _ = writeln!(text, "    {}", row.message);
        let _ = writeln!(text, "    {DIM}{}{PLAIN}", row.explanation);
    }
    text
}

fn line_of(row: &Row) -> String {
    let status = if row.status.is_empty() {
        "-"
    } else {
        &row.status
    };
    let counts = if row.met {
        format!(" ✓ ({} polls, {} writes)", row.polls, row.writes)
    } else {
        String::new()
    };
    format!(
        "{:<14} {status:<7} {:<7} {:<19} {}{counts}",
        row.name, row.ready, row.reason, row.message
    )
}
