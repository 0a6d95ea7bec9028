//! A real kube-apiserver on a real etcd, with the kubectl of the same release.
//!
//! No package registry ships these programs ready-made, but the Go module proxy has their source:
//! [`Binaries`] finds or builds them, [`Cluster`] runs them, [`Kubectl`] talks to them.
//!
//! There is no controller-manager and no kubelet: namespaces get no `default` `ServiceAccount` and
//! stay Terminating once deleted, owner references are not collected, and no Pod ever runs.

mod binaries;
mod cluster;
mod identity;
mod kubectl;

pub use binaries::{Binaries, Lookup};
pub use cluster::Cluster;
pub use kubectl::{Kubectl, Output};
