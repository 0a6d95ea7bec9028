//! Hostile tenants against the operator as its users run it: the real binary under the RBAC of `deploy/`, on a
//! real kube-apiserver. A tenant has the rights of `edit` in one namespace, and hosts of its own in the place of a
//! cloud.
//!
//! Each test compares two windows of a `trial::Trial`: what three neighbours get while nobody does them harm, and
//! what they get during an attack (`window::Window`). It asserts besides that the process has never had more than
//! the memory that `deploy/` grants it. Trials run one at a time, as they measure times.

#[allow(
    dead_code,
    unused_imports,
    reason = "it serves all end-to-end tests, and these need a part of it"
)]
#[path = "../it/harness/mod.rs"]
mod harness;

mod answers;
mod api_server;
mod churn;
mod hosts;
mod http_port;
mod logins;
mod memory;
mod neighbours;
mod polls;
mod tenant;
mod texts_and_addresses;
mod trial;
mod window;
