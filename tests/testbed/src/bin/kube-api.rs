//! A Kubernetes API as a program: see `--help`.

use clap::Parser;
use std::io::{self, Write};
use testbed::kubernetes::Cluster;

/// Runs a real kube-apiserver and its etcd on loopback until standard input ends. Prints two lines once
/// they are ready: the path of an administrator's kubeconfig, and that of kubectl.
#[derive(Parser)]
#[command(version)]
struct Args {}

fn main() -> anyhow::Result<()> {
    Args::parse();
    let cluster = Cluster::start()?;
    let mut out = io::stdout();
    writeln!(out, "{}", cluster.admin_kubeconfig().display())?;
    writeln!(out, "{}", cluster.kubectl_path().display())?;
    out.flush()?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
