//! The specification of the tracker as tests. A [`world::World`] simulates the API server, the cloud and
//! the Secrets in virtual time; [`invariants`] checks what must hold at every step of every test.

// A difference of times that underflows panics, and so fails the test.
#![allow(clippy::unchecked_time_subtraction)]

mod adaptive;
mod adaptive_plot;
mod conditions_table;
mod control_loop;
mod credentials;
mod deadline;
mod fairness;
mod hosts;
mod image_id;
mod invariants;
mod leadership;
mod lease;
mod lists;
mod many;
mod measures;
mod oracles;
mod packing;
mod phases;
mod polls;
mod precedence;
mod progress;
mod quota;
mod random_operations;
mod repair;
mod restart;
mod samples;
mod scale;
mod server;
mod ttl;
mod waits;
mod world;
mod writes;
