//! The operator as its users meet it: the real binary, under its own `ServiceAccount` with the RBAC of
//! `deploy/`, on a real kube-apiserver, against the IMS simulator.
//!
//! One API server serves all tests; each test has a namespace, a simulator and an operator process
//! of its own. Times are shortened (see `harness::SCALE`), logic is not.

mod answers;
mod canary;
mod cli;
mod conditions;
mod crash;
mod crd;
mod credentials;
mod errors;
mod faults;
mod harness;
mod house;
mod judged;
mod keys;
mod keystone;
mod lifecycle;
mod lifetime;
mod logins;
mod objects;
mod outage;
mod query;
mod races;
mod recorded_run;
mod repair;
mod spec;
mod tools;
