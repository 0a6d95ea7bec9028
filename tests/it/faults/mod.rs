//! What a cloud may do wrong, watched on the whole operator. What one poll makes of it is tested in the
//! package of the cloud client.

mod contradictions;
mod credentials;
mod ids;
mod program;
