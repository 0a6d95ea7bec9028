//! Follows image jobs of Open Telekom Cloud and Huawei Cloud to their end, on behalf of
//! `ImageExportJob` objects.
//!
//! ```text
//!         API server                                     cloud (IMS job query, IAM)
//!     watch │      ▲ status, events                            ▲ GET job      │ answer
//!           ▼      │                                           │              ▼
//!     ┌──────────────────── controller (async, does all I/O) ──────────────────────┐
//!     │  watch               write, events                     poll, credentials   │
//!     └─────┬──────────────────▲────────────────────────────▲──────────────┬───────┘
//!      Input│            Effect│                      Effect│         Input│
//!           ▼                  │                            │              ▼
//!     ┌───────────── tracker (image-export-core: pure, synchronous) ───────────────┐
//!     │  what is due, which poll is next, what the status should be                │
//!     └────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Data flows in one direction: *watched → due → polled → decided → written → watched*. [`controller`]
//! is the operator in a cluster. [`query`] runs the same tracker for one job, without Kubernetes.
//! [`cli`] puts the parts together; `cluster` connects to the API server; [`telemetry`] has logs, metrics and probes. `docs/architecture.md`
//! gives the reasons.

pub mod cli;
mod cluster;
mod contained;
pub mod controller;
pub mod query;
pub mod telemetry;
