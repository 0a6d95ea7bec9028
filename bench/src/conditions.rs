//! Under which conditions is measured.

use crate::peers::source;
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command, thread};

/// For people and for the results.
pub fn read() -> Value {
    let proc = |file: &str| fs::read_to_string(Path::new("/proc").join(file)).unwrap_or_default();
    let cpus = proc("cpuinfo");
    let root = |file: &str| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        fs::read_to_string(file).unwrap_or_default()
    };
    let read = |file: &str| fs::read_to_string(source(file)).unwrap_or_default();
    json!({
        "kernel": proc("sys/kernel/osrelease").trim(),
        "processor": after(&cpus, "model name\t: "),
        "cores": thread::available_parallelism().map_or(0, usize::from),
        "memory_gib": after(&proc("meminfo"), "MemTotal:")
            .trim_end_matches(" kB").trim().parse::<f64>().map_or(0.0, |kib| (kib / 1_048_576.0).round()),
        "load": proc("loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        "commit": output("git", &["rev-parse", "--short", "HEAD"]),
        "profile": if cfg!(debug_assertions) { "dev" } else { "release" },
        "rustc": output("rustc", &["--version"]),
        "go": output("go", &["env", "GOVERSION"]),
        "python": output("python3", &["--version"]),
        "kubernetes": after(&root("tests/testbed/kubernetes/go.mod"), "k8s.io/kubernetes v").trim_end_matches(" // indirect"),
        "kube": after(&root("Cargo.lock"), "name = \"kube\"\nversion = ").trim_matches('"'),
        "controller-runtime": after(&read("controller-runtime/go.mod"), "sigs.k8s.io/controller-runtime v"),
        "kopf": after(&read("kopf/requirements.txt"), "\nkopf=="),
    })
}

/// What follows a text on its line.
fn after<'t>(text: &'t str, start: &str) -> &'t str {
    let rest = text.split_once(start).map_or("", |(_, rest)| rest);
    rest.lines().next().unwrap_or_default().trim()
}

fn output(program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().map(|output| output.stdout);
    let text = String::from_utf8(output.unwrap_or_default());
    text.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_is_known() {
        let conditions = read();
        for (name, value) in conditions.as_object().unwrap() {
            // A source archive has no commit, and a machine may lack other tools.
            let is_tool = ["commit", "go", "python", "rustc"].contains(&name.as_str());
            assert!(
                is_tool || *value != json!("") && *value != json!(0),
                "{name}: {value}"
            );
        }
    }
}
