//! The command line. It is part of the library so that other programs can be the operator: the
//! quick start re-executes itself as one.

mod args;
mod query;
mod run;
mod time_scale;

use anyhow::Context;
use args::{Cli, Command};
use clap::Parser;
use image_export_api::crd;
use std::{ffi::OsString, process::ExitCode};

/// The whole program: runs the subcommand that `arguments` name, the first of which is the program's
/// name. Invalid arguments and `--help` print a message and exit the process.
///
/// It starts a runtime and installs the log and the TLS provider of the process: call it once,
/// outside of any runtime.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let cli = Cli::parse_from(arguments);
    match cli.command {
        Some(Command::Crd) => {
            print!("{}", crd::yaml());
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Query(arguments)) => query::query(*arguments),
        Some(Command::Run(arguments)) => run::run(*arguments),
        None => run::run(cli.run),
    }
}

fn install_tls_provider() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("another TLS provider is installed already")
}
