//! The results of all sessions: a file with a line of JSON for each run, and for the conditions of each session.

use anyhow::Context;
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

/// One session adds to the file what it measures, in place of what earlier ones measured of the same.
pub struct Results {
    file: PathBuf,
    session: String,
    /// What this session has begun to measure.
    begun: HashSet<Key>,
    lines: Vec<Value>,
}

/// Row, case and subject of a run.
type Key = (String, String, String);

/// A run as the file has it.
#[derive(Clone, Debug)]
pub struct Run {
    /// Set when it is added.
    pub session: String,
    pub row: String,
    pub case: String,
    pub subject: String,
    pub number: u64,
    /// Why it does not count.
    pub void: Option<String>,
    pub figures: Value,
}

impl Results {
    /// Reads the file, if there is one.
    pub fn open(file: &Path, session: String) -> anyhow::Result<Self> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| file.display().to_string()),
        };
        let lines = text.lines().map(serde_json::from_str);
        let lines = lines.collect::<Result<_, _>>();
        Ok(Self {
            file: file.to_owned(),
            session,
            begun: HashSet::new(),
            lines: lines.with_context(|| file.display().to_string())?,
        })
    }

    pub fn add_conditions(&mut self, conditions: &Value) -> anyhow::Result<()> {
        self.lines
            .push(json!({ "session": self.session, "conditions": conditions }));
        self.write()
    }

    /// Adds a run.
    pub fn add(&mut self, run: &Run) -> anyhow::Result<()> {
        let key = key(&run.row, &run.case, &run.subject);
        if self.begun.insert(key.clone()) {
            let session = self.session.as_str();
            self.lines
                .retain(|line| key_of(line).as_ref() != Some(&key) || line["session"] == session);
        }
        self.lines.push(json!({
            "session": self.session,
            "row": run.row,
            "case": run.case,
            "subject": run.subject,
            "run": run.number,
            "void": run.void,
            "figures": run.figures,
        }));
        self.write()
    }

    /// The runs in the order in which they were made.
    pub fn runs(&self) -> Vec<Run> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let run = |line: &Value| {
            Some(Run {
                session: text(&line["session"])?,
                row: text(&line["row"])?,
                case: text(&line["case"])?,
                subject: text(&line["subject"])?,
                number: line["run"].as_u64()?,
                void: text(&line["void"]),
                figures: line["figures"].clone(),
            })
        };
        self.lines.iter().filter_map(run).collect()
    }

    /// The conditions of each session of which runs are left, with its name.
    pub fn conditions(&self) -> Vec<(String, Value)> {
        let runs = self.lines.iter().filter(|line| line["row"].is_string());
        let used: HashSet<_> = runs.filter_map(|line| line["session"].as_str()).collect();
        let conditions = |line: &Value| {
            let session = line["session"].as_str()?;
            let conditions = line.get("conditions")?;
            used.contains(session)
                .then(|| (session.to_owned(), conditions.clone()))
        };
        self.lines.iter().filter_map(conditions).collect()
    }

    /// Under another name first, so that the file is whole whenever the session ends.
    fn write(&self) -> anyhow::Result<()> {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&line.to_string());
            text.push('\n');
        }
        let unfinished = self.file.with_extension("unfinished");
        fs::write(&unfinished, text)
            .and_then(|()| fs::rename(&unfinished, &self.file))
            .with_context(|| self.file.display().to_string())
    }
}

fn key(row: &str, case: &str, subject: &str) -> Key {
    (row.to_owned(), case.to_owned(), subject.to_owned())
}

fn key_of(line: &Value) -> Option<Key> {
    let text = |name: &str| line[name].as_str();
    Some(key(text("row")?, text("case")?, text("subject")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(row: &str, subject: &str, number: u64) -> Run {
        Run {
            session: String::new(),
            row: row.to_owned(),
            case: "case".to_owned(),
            subject: subject.to_owned(),
            number,
            void: None,
            figures: json!({ "cpu": number }),
        }
    }

    #[test]
    fn a_session_replaces_what_it_measures_again_and_keeps_the_rest() {
        let file = format!("image-export-bench-results-{}.jsonl", std::process::id());
        let file = std::env::temp_dir().join(file);
        let _ = fs::remove_file(&file);
        let mut first = Results::open(&file, "first".to_owned()).unwrap();
        first.add_conditions(&json!({ "cores": 2 })).unwrap();
        for number in 0..2 {
            first.add(&run("a", "operator", number)).unwrap();
            first.add(&run("b", "operator", number)).unwrap();
        }
        let mut second = Results::open(&file, "second".to_owned()).unwrap();
        second.add_conditions(&json!({ "cores": 4 })).unwrap();
        for number in 7..9 {
            second.add(&run("b", "operator", number)).unwrap();
        }
        let read = Results::open(&file, "third".to_owned()).unwrap();
        fs::remove_file(&file).unwrap();
        let runs: Vec<_> = read
            .runs()
            .iter()
            .map(|r| (r.row.clone(), r.number))
            .collect();
        let runs: Vec<_> = runs.iter().map(|(row, n)| (row.as_str(), *n)).collect();
        assert_eq!(runs, [("a", 0), ("a", 1), ("b", 7), ("b", 8)]);
        let sessions: Vec<_> = read
            .conditions()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(sessions, ["first", "second"]);
    }
}
