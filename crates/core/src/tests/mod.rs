//! The tracker's specification in tests: a [`world::World`] plays the API server, the cloud and the
//! Secrets in virtual time, [`oracle`] checks what must hold at every step of every test.

// A difference of times that underflows panics, as a test should.
#![allow(clippy::unchecked_time_subtraction)]

mod credentials;
mod deadline;
mod image_id;
mod lists;
mod oracle;
mod polls;
mod precedence;
mod progress;
mod quota;
mod random_operations;
mod repair;
mod restart;
mod ring;
mod rows;
mod samples;
mod scale;
mod server;
mod table;
mod ttl;
mod world;
mod writes;
