//! The image service: a poll of a job, and what its answer means.

pub(crate) mod answer;
pub(crate) mod client;
pub(crate) mod error;
pub(crate) mod job;
mod poll;
