//! The page of all results: a table and a plot for each row, from the file of results alone.

use crate::{
    plot::{self, Bar, Group},
    results::{Results, Run},
    tables::{Column, TABLES, Table},
};
use anyhow::Context;
use serde_json::Value;
use std::{fmt::Write, fs, path::Path};

const BEGIN: &str = "<!-- Made by the benchmark. -->\n";
const END: &str = "<!-- End of what the benchmark made. -->\n";
/// The subject that others are compared with.
const BASE: &str = "operator";

/// Writes the page's results and their plots.
pub fn write(results: &Results, page: &Path) -> anyhow::Result<()> {
    let context = || page.display().to_string();
    let before = fs::read_to_string(page).with_context(context)?;
    let images = page.with_file_name("images");
    let runs = results.runs();
    let mut text = String::new();
    for table in &TABLES {
        let measured = Measured::of(table, &runs);
        if measured.cases.is_empty() {
            continue;
        }
        let image = format!("benchmark-{}.svg", table.row);
        let _ = writeln!(text, "## {}\n\n{}\n", table.title, wrap(table.text));
        let _ = writeln!(text, "![{}](images/{image})\n", table.title);
        text.push_str(&measured.tables());
        fs::write(images.join(image), measured.plot()).with_context(context)?;
    }
    text.push_str(&conditions(&results.conditions()));
    let after = replace(&before, &text).with_context(context)?;
    fs::write(page, after).with_context(context)
}

/// The page with another text between the marks.
fn replace(page: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{text}{END}{after}"))
}

/// In lines of at most 120 columns.
fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.len() + 1 + word.len() <= 120 {
            let _ = write!(line, " {word}");
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

/// The runs of a row, by case.
struct Measured<'r> {
    table: &'r Table,
    cases: Vec<Case<'r>>,
}

/// The runs of a case, by subject.
struct Case<'r> {
    name: &'r str,
    subjects: Vec<(&'r str, Vec<&'r Run>)>,
}

impl<'r> Measured<'r> {
    /// Cases and subjects come in the order in which they were first measured.
    fn of(table: &'r Table, runs: &'r [Run]) -> Self {
        let mut cases: Vec<Case> = Vec::new();
        for run in runs.iter().filter(|run| run.row == table.row) {
            let place = cases.iter().position(|case| case.name == run.case);
            let place = place.unwrap_or_else(|| {
                let subjects = Vec::new();
                let name = &run.case;
                cases.push(Case { name, subjects });
                cases.len() - 1
            });
            let subjects = &mut cases[place].subjects;
            match subjects.iter_mut().find(|(name, _)| *name == run.subject) {
                Some((_, runs)) => runs.push(run),
                None => subjects.push((&run.subject, vec![run])),
            }
        }
        // The operator comes first, whichever was measured again last.
        for case in &mut cases {
            case.subjects.sort_by_key(|(name, _)| rank(name));
        }
        cases.sort_by_key(|case| number_at_start(case.name));
        Self { table, cases }
    }

    fn tables(&self) -> String {
        let mut text = String::new();
        for case in &self.cases {
            let _ = write!(text, "| {} |", case.name);
            for Column { heading, .. } in self.table.columns {
                let _ = write!(text, " {heading} |");
            }
            let main = self.table.columns.iter().find(|c| c.key == self.table.main);
            let main = main.map_or("", |column| column.heading);
            let _ = writeln!(text, " {main}, ratio to operator |");
            let _ = writeln!(text, "|---|{}", "---|".repeat(self.table.columns.len() + 1));
            for (subject, runs) in &case.subjects {
                let _ = write!(text, "| {subject} |");
                for Column { key, decimals, .. } in self.table.columns {
                    let shown = Range::of(values(runs, key)).map(|range| range.show(*decimals));
                    let _ = write!(text, " {} |", shown.unwrap_or("–".into()));
                }
                let _ = writeln!(text, " {} |", case.ratio(subject, self.table.main));
            }
            text.push('\n');
            text.push_str(&case.voids());
        }
        text
    }

    fn plot(&self) -> String {
        let key = self.table.main;
        let main = self.table.columns.iter().find(|column| column.key == key);
        let Column {
            heading, decimals, ..
        } = main.expect("a column is plotted");
        let groups = self.cases.iter().map(|case| Group {
            name: case.name.to_owned(),
            bars: case
                .subjects
                .iter()
                .map(|(subject, runs)| {
                    let range = Range::of(values(runs, key));
                    Bar {
                        label: (*subject).to_owned(),
                        shown: range.as_ref().map_or("–".into(), |r| r.show(*decimals)),
                        range: range.map(|r| [r.least, r.median, r.most]),
                    }
                })
                .collect(),
        });
        plot::bars(
            &format!("{}: {heading}", self.table.title),
            &groups.collect::<Vec<_>>(),
        )
    }
}

impl Case<'_> {
    /// Of each run to the operator's of the same number.
    fn ratio(&self, subject: &str, key: &str) -> String {
        let runs = |name: &str| self.subjects.iter().find(|(subject, _)| *subject == name);
        let (Some((_, own)), Some((_, base))) = (runs(subject), runs(BASE)) else {
            return "–".to_owned();
        };
        let ratios = own.iter().filter_map(|run| {
            let is_same_turn =
                |base: &&&Run| (&base.session, base.number) == (&run.session, run.number);
            let base = base.iter().find(is_same_turn)?;
            let (own, base) = (value(run, key)?, value(base, key)?);
            (base > 0.0).then_some(own / base)
        });
        let range = Range::of(ratios.collect());
        match range {
            _ if subject == BASE => "1".to_owned(),
            Some(range) => range.show(2),
            None => "–".to_owned(),
        }
    }

    /// A sentence for each subject with runs that do not count.
    fn voids(&self) -> String {
        let mut text = String::new();
        for (subject, runs) in &self.subjects {
            let reasons: Vec<_> = runs.iter().filter_map(|run| run.void.as_deref()).collect();
            if let Some(reason) = reasons.first() {
                let line = reason.lines().next().unwrap_or_default();
                let (void, all) = (reasons.len(), runs.len());
                let _ = writeln!(
                    text,
                    "{}\n",
                    wrap(&format!(
                        "{subject}: {void} of {all} runs do not count: {line}."
                    ))
                );
            }
        }
        text
    }
}

fn values(runs: &[&Run], key: &str) -> Vec<f64> {
    runs.iter().filter_map(|run| value(run, key)).collect()
}

/// Of a run that counts.
fn value(run: &Run, key: &str) -> Option<f64> {
    let counts = run.void.is_none();
    counts.then(|| run.figures[key].as_f64())?
}

fn rank(subject: &str) -> usize {
    let order = ["operator", "kube-rs", "controller-runtime", "kopf"];
    let place = order.iter().position(|name| subject.starts_with(name));
    place.unwrap_or(order.len())
}

/// So that cases of many objects come after those of few; others stay in their order.
fn number_at_start(case: &str) -> u64 {
    let Some((number, "objects")) = case.split_once(' ') else {
        return 0;
    };
    number.parse().unwrap_or(0)
}

struct Range {
    least: f64,
    median: f64,
    most: f64,
}

impl Range {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self {
            least,
            median,
            most,
        })
    }

    /// The range only where it shows.
    fn show(&self, decimals: usize) -> String {
        let [least, median, most] =
            [self.least, self.median, self.most].map(|v| format!("{v:.decimals$}"));
        if least == most {
            median
        } else {
            format!("{median} ({least} to {most})")
        }
    }
}

fn conditions(sessions: &[(String, Value)]) -> String {
    let mut text = "## Conditions\n\n".to_owned();
    for (session, conditions) in sessions {
        let conditions = conditions.as_object().into_iter().flatten();
        let conditions: Vec<_> = conditions
            .map(|(name, value)| {
                let value = value.as_str().map_or(value.to_string(), str::to_owned);
                format!("{} {value}", name.replace('_', " "))
            })
            .collect();
        let started = session.split('.').next().unwrap_or_default();
        let session = format!("Session of {started}Z: {}.", conditions.join(", "));
        let _ = writeln!(text, "{}\n", wrap(&session));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(subject: &str, number: u64, cpu: f64) -> Run {
        Run {
            session: String::new(),
            row: "polls".to_owned(),
            case: "case".to_owned(),
            subject: subject.to_owned(),
            number,
            void: None,
            figures: json!({ "cpu_seconds_per_10000_polls": cpu }),
        }
    }

    fn tables(runs: &[Run]) -> String {
        Measured::of(&TABLES[0], runs).tables()
    }

    #[test]
    fn a_table_has_medians_ranges_and_paired_ratios() {
        let figures = [("kube-rs", [0.4, 0.8, 0.6]), ("operator", [0.1, 0.4, 0.2])];
        let runs = figures.iter().flat_map(|(subject, figures)| {
            (0..)
                .zip(figures)
                .map(|(number, cpu)| run(subject, number, *cpu))
        });
        let text = tables(&runs.collect::<Vec<_>>());
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[2].starts_with("| operator | 0.200 (0.100 to 0.400) |"),
            "{text}"
        );
        assert!(lines[2].ends_with("| 1 |"), "{text}");
        assert!(lines[3].ends_with("| 3.00 (2.00 to 4.00) |"), "{text}");
    }

    #[test]
    fn runs_of_two_sessions_are_not_compared() {
        let mut runs = [run("operator", 0, 0.2), run("kube-rs", 0, 0.4)];
        runs[1].session = "a later one".to_owned();
        let text = tables(&runs);
        assert!(
            text.lines()
                .any(|line| line.ends_with("| 0.400 | – | – | – | – |")),
            "{text}"
        );
    }

    #[test]
    fn a_void_run_does_not_count_and_is_said() {
        let mut runs = [run("operator", 0, 0.2), run("operator", 1, 9.0)];
        runs[1].void = Some("the cloud used 0.80 of a processor".to_owned());
        let text = tables(&runs);
        assert!(text.contains("| operator | 0.200 |"), "{text}");
        let said = "operator: 1 of 2 runs do not count: the cloud used 0.80 of a processor.";
        assert!(text.contains(said), "{text}");
    }

    #[test]
    fn each_table_plots_a_column_of_its_own() {
        for table in &TABLES {
            let found = table.columns.iter().any(|column| column.key == table.main);
            assert!(found, "{}", table.row);
            assert!(crate::rows::ALL.contains(&table.row), "{}", table.row);
        }
        assert_eq!(TABLES.len(), crate::rows::ALL.len());
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let page = format!("before\n{BEGIN}old{END}after\n");
        let once = replace(&page, "new\n").unwrap();
        assert_eq!(once, format!("before\n{BEGIN}\nnew\n{END}after\n"));
        assert_eq!(replace(&once, "new\n").unwrap(), once);
        assert_eq!(replace("no marks", "new"), None);
    }

    #[test]
    fn many_objects_come_after_few() {
        let mut runs = [run("operator", 0, 0.2), run("operator", 1, 0.3)];
        runs[0].case = "10000 objects".to_owned();
        runs[1].case = "0 objects".to_owned();
        let text = tables(&runs);
        assert!(text.starts_with("| 0 objects |"), "{text}");
    }
}
