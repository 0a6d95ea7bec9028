//! Real parts for the operator's tests, so that they speak to what the operator meets in a cluster:
//!
//! - [`kubernetes`]: a real kube-apiserver on a real etcd, and kubectl;
//! - [`keystone`]: a real Keystone, run by the Python of [`python`];
//! - [`ims`]: a simulator of the job query, for which no public one exists;
//! - [`judges`]: the verdicts of Flux, Argo CD and kstatus on an object, by their own code;
//! - [`process`]: child processes that never outlive the test process.
//!
//! Everything is blocking std code unless its module notes otherwise, binds to loopback only, and
//! any number of testbeds may run at once.

mod cache;
mod golang;
pub mod ims;
pub mod judges;
pub mod keystone;
pub mod kubernetes;
mod loopback;
pub mod process;
mod progress;
pub mod python;
mod scratch;
