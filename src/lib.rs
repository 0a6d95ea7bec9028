//! Follows image jobs of Open Telekom Cloud and Huawei Cloud to their end, on behalf of
//! `ImageExportJob` objects.
//!
//! ```text
//!         API server                                     cloud (IMS job query, IAM)
//!     watch │      ▲ status, events                            ▲ GET job      │ answer
//!           ▼      │                                           │              ▼
//!     ┌───────────────────────── controller (async, thin) ─────────────────────────┐
//!     │  watch               write, events                     poll, credentials   │
//!     └─────┬──────────────────▲────────────────────────────▲──────────────┬───────┘
//!      Input│            Effect│                      Effect│         Input│
//!           ▼                  │                            │              ▼
//!     ┌─────────────────────── tracker (pure, synchronous) ────────────────────────┐
//!     │  what is due, who may ask, what the status should say                      │
//!     └────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Data goes round once: *seen → due → polled → decided → written → seen*. [`tracker`] decides and
//! knows [`api`] and [`observation`] only; [`cloud`] asks and knows [`observation`] only;
//! [`controller`] is the only place that knows everything. [`query`] is a controller for one job and
//! one question, without Kubernetes. `docs/architecture.md` says why.

pub mod cli;

pub mod controller;

pub mod query;
pub mod telemetry;
