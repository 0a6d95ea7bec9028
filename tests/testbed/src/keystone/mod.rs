//! A real Keystone, the identity service that the cloud's own is made from, on sqlite and loopback.
//!
//! [`Keystone::start`] blocks, everything else is async. Starting takes about three seconds: the
//! program comes from [`crate::python`], and its database is copied from one prepared before.
//! Agencies do not exist in Keystone.

mod api;
mod server;
mod settings;
mod template;

pub use api::{AccessKey, ApplicationCredential, User};
pub use server::{Config, Keystone};
