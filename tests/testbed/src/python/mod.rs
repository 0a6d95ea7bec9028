//! Programs written in Python: Keystone, and a client of the cloud that others wrote.
//!
//! [`Environment`] holds exactly the packages of `python/requirements.txt`. It is made once, from a
//! package index by pip, and kept in the testbed's cache.

mod environment;
mod interpreter;

pub use environment::Environment;
pub(crate) use environment::{run, script};
