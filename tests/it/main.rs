//! The operator as its users run it: the real binary, under its own `ServiceAccount` with the RBAC of
//! `deploy/`, on a real kube-apiserver, against the IMS simulator.
//!
//! One API server serves all tests; each test has a namespace, a simulator and an operator process
//! of its own: a `harness::Team`. The operator's durations are scaled down (`harness::SCALE`).

mod answers;
mod canary;
mod cli;
mod conditions;
mod crash;
mod crd;
mod credentials;
mod deadline_and_ttl;
mod errors;
mod faults;
mod harness;
mod interfaces;
mod keys;
mod keystone;
mod leadership;
mod lifecycle;
mod logins;
mod manifests;
mod network;
mod objects;
mod outage;
mod query;
mod quickstart;
mod races;
mod recorded_run;
mod repair;
mod repository;
mod rights;
mod spec;
mod tool_verdicts;
mod upgrade;
mod waits;
