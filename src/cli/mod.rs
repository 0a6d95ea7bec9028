//! The command line. It is part of the library so that other programs can be the operator: the
//! quick start re-executes itself as one.

mod args;
#[cfg(test)]
mod flags;
mod query;
mod run;
mod signals;
mod time_scale;

use anyhow::Context;
use args::{Cli, Command};
use clap::{Command as Clap, CommandFactory, FromArgMatches};
use image_export_api::crd;
use std::{
    ffi::{OsStr, OsString},
    io::{self, ErrorKind, Write},
    process::ExitCode,
    time::Duration,
};
use tokio::runtime::Runtime;

/// How long the runtime may take to drop its tasks at the end.
const FAREWELL: Duration = Duration::from_millis(100);

/// The whole program: runs the subcommand that `arguments` name, the first of which is the program's
/// name. Invalid arguments and `--help` print a message and exit the process.
///
/// It starts a runtime and installs the log and the TLS provider of the process: call it once,
/// outside of any runtime.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let mut command = without_empty_variables(Cli::command());
    let matches = command.try_get_matches_from_mut(arguments);
    let mut matches = matches.unwrap_or_else(|error| error.exit());
    let cli = Cli::from_arg_matches_mut(&mut matches)
        .unwrap_or_else(|error| error.format(&mut command).exit());
    match cli.command {
        Some(Command::Crd) => {
            match io::stdout().write_all(crd::yaml().as_bytes()) {
                // Whoever reads it has read enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                written => written?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Query(arguments)) => query::query(*arguments),
        Some(Command::Run(arguments)) => run::run(*arguments),
        None => run::run(cli.run),
    }
}

/// An environment variable that is set to nothing counts as unset.
fn without_empty_variables(command: Clap) -> Clap {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| {
        if arg.get_env().is_some_and(is_empty) {
            arg.env(None::<&str>)
        } else {
            arg
        }
    });
    command.mut_subcommands(without_empty_variables)
}

/// Runs a program and leaves behind what still blocks a thread then: a name lookup has no time limit, and
/// dropping the runtime would wait for its end.
fn run_on<T>(runtime: Runtime, program: impl Future<Output = T>) -> T {
    let result = runtime.block_on(program);
    runtime.shutdown_timeout(FAREWELL);
    result
}

fn install_tls_provider() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("another TLS provider is installed already")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tokio::runtime::Builder;

    #[test]
    fn a_program_ends_although_a_lookup_still_blocks_a_thread() {
        for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
            let (end_lookup, lookup) = mpsc::channel::<()>();
            let (sender, lookup_ended) = mpsc::channel();
            let program = async move {
                tokio::task::spawn_blocking(move || {
                    // As long as the test goes on, but not for ever if it hangs.
                    let _ = lookup.recv_timeout(Duration::from_secs(60));
                    let _ = sender.send(());
                });
                "done"
            };
            assert_eq!(run_on(builder.build().unwrap(), program), "done");
            let left = lookup_ended.try_recv();
            assert_eq!(left, Err(mpsc::TryRecvError::Empty), "it is left behind");
            drop(end_lookup);
        }
    }
}
