//! What the answers of the identity service and of the image service have in common: JSON, texts,
//! times and error bodies. Pure functions over bytes; nothing in here knows jobs, tokens or hosts.

pub(crate) mod error_body;
pub(crate) mod json;
pub(crate) mod responder;
pub(crate) mod retry_after;
pub(crate) mod text;
pub(crate) mod timestamp;
