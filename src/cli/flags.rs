//! The tables of `docs/flags.md`, made of the arguments: `RECORD=1 cargo test --lib flags` writes them.

use super::args::Cli;
use clap::{Arg, Command, CommandFactory};
use std::{env, fmt::Write as _, fs};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/flags.md");

const HEAD: &str = "\
# Flags

All flags of `image-export-operator`, made from the code by a test. `--help` says the same. A flag on the command line
wins over its variable. An empty variable counts as unset. The variable of a flag without a value is `true` or `false`.
";

/// What the operator reads and no flag sets.
const VARIABLES: &str = "
## Variables without a flag

| variable | meaning |
|---|---|
| `KUBECONFIG` | kubeconfig files, as kubectl reads them; else `~/.kube/config`, else the cluster that the Pod runs in |
| `POD_NAMESPACE` | namespace of the Lease, unless `--leader-elect-namespace` names it |
| `POD_NAME` | who holds the Lease; else `HOSTNAME` |
| `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY` | proxies, for the cluster and for clouds: see [cloud.md](cloud.md#proxies) |
| `SSL_CERT_FILE`, `SSL_CERT_DIR` | a file, and folders with colons between them, of certificate authorities (PEM) to trust in place of the system's |
| `OS_CLIENT_CONFIG_FILE` | the clouds.yaml of `query` |
";

fn document() -> String {
    let cli = Cli::command();
    let table = |name| table(cli.find_subcommand(name).expect("a subcommand"));
    format!(
        "{HEAD}\n## `run`\n\n{}\n## `query`\n\n{}{VARIABLES}",
        table("run"),
        table("query")
    )
}

fn table(command: &Command) -> String {
    let mut table = "| flag | variable | default | meaning |\n|---|---|---|---|\n".to_owned();
    for arg in command.get_arguments() {
        let (default, meaning) = default_and_meaning(arg);
        let variable = arg.get_env().map(|name| name.to_string_lossy());
        let variable = variable.map_or_else(|| "–".to_owned(), |name| format!("`{name}`"));
        let flag = flag(arg);
        writeln!(table, "| {flag} | {variable} | {default} | {meaning} |").expect("text");
    }
    table
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

fn flag(arg: &Arg) -> String {
    let long = arg.get_long().expect("each argument is a flag");
    let short = arg.get_short().map(|short| format!("`-{short}`, "));
    let value = arg.get_value_names().filter(|_| takes_value(arg));
    let value = value.and_then(<[_]>::first);
    let value = value.map(|name| format!(" {name}"));
    format!(
        "{}`--{long}{}`",
        short.unwrap_or_default(),
        value.unwrap_or_default()
    )
}

/// A default that depends on something stands at the end of the text of --help.
fn default_and_meaning(arg: &Arg) -> (String, String) {
    let help = arg.get_long_help().or(arg.get_help());
    let help = help.expect("a text for --help").to_string();
    let (meaning, described) = help.split_once(". Default: ").unwrap_or((&help, ""));
    let values = arg.get_default_values().iter();
    let values: Vec<_> = values
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    let default = match values.as_slice() {
        _ if !takes_value(arg) => "off".to_owned(),
        [] if described.is_empty() => "–".to_owned(),
        [] => described.to_owned(),
        values => values.join(", "),
    };
    let takes_one = takes_value(arg) || arg.get_env().is_some();
    let possible: Vec<_> = arg
        .get_possible_values()
        .iter()
        .filter(|_| takes_one)
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    let meaning = if possible.is_empty() {
        meaning.to_owned()
    } else {
        format!("{meaning}. One of {}", possible.join(", "))
    };
    (default, meaning)
}

#[test]
fn the_table_of_flags_is_that_of_the_code() {
    let wanted = document();
    if env::var_os("RECORD").is_some() {
        fs::write(DOCUMENT, &wanted).expect("it can be written");
    }
    let written = fs::read_to_string(DOCUMENT).expect("docs/flags.md");
    assert!(
        written == wanted,
        "docs/flags.md is out of date: RECORD=1 cargo test --lib flags"
    );
}
