//! The pure core: which job is polled when, and what each object's status shows.
//!
//! [`Tracker::handle`] takes one [`Input`] and asks for [`Output`]; [`Tracker::next_deadline`] says when to
//! call it with an [`Input::Tick`]. There is no clock, no random source, no socket, no task and no lock in
//! here: time is passed in, jitter comes from a hash of the uid. So the lifecycle of 100,000 jobs runs in a
//! unit test in virtual time, and every failure is a list of inputs that can be replayed.
//!
//! ```text
//! Input ─▶ evidence ─▶ dirty objects ─▶ decide(&Job, now) ─▶ compare with what is under way ─▶ Output
//! ```
//!
//! An input is level-triggered: it changes what is held of the objects and names those that it touched;
//! then each of them gets one decision (`decide`), which depends on what is held alone.
//!
//! | module | what it holds |
//! |---|---|
//! | `tracker` | the loop; what is sent, when its turn has come |
//! | `intake`, `outcomes` | the inputs: from the watches, and the answers to what was sent |
//! | `decide`, `schedule` | the decision; when the next poll is due |
//! | `adaptive` | how long a job waits for it, by how likely it is to end meanwhile |
//! | `job` | all that is held of one object: |
//! | `evidence`, `facts` | – what the polls of its job have shown |
//! | [`phase`], `message`, [`status`] | – the conditions table, its sentences, and the status made of them |
//! | `sync` | – what the API server has of it, and which change is under way |
//! | `deadline` | – what its spec limits in time |
//! | `packed`, `pack`, `compact` | all of that in few bytes, while nothing is under way |
//! | `registry`, `totals`, `secrets`, `quota`, `hosts`, `write_queue`, `timers` | what many objects share; these return values and call nobody |
//! | `state` | all of it together |
//! | [`lease`] | leader election, which the caller runs: it tells the tracker by [`Input::Leading`] |
//! | `effects`, `config` | the contract with the caller; its numbers |
//! | [`FairQueue`], `slots` | queues and slots whose owners get shares |
//! | `keys`, `time`, `token_bucket`, `cadence`, `version` | keys, clocks and arithmetic |

mod adaptive;
mod cadence;
mod compact;
mod config;
mod deadline;
mod decide;
mod effects;
mod evidence;
mod facts;
mod fair;
mod hosts;
mod intake;
mod job;
mod keys;
pub mod lease;
mod message;
mod namespaces;
mod outcomes;
mod pack;
mod packed;
pub mod phase;
mod quota;
mod registry;
mod schedule;
mod secrets;
mod slots;
mod state;
pub mod status;
mod sync;
#[cfg(test)]
mod tests;
mod time;
mod timers;
mod token_bucket;
mod totals;
mod tracker;
mod version;
mod write_queue;

pub use config::{Config, PollMode};
pub use effects::{
    CredentialError, CredentialRef, Deletion, Effect, FetchResult, FetchTicket, Input, ObjectEvent,
    ObjectKey, Output, PollRequest, PollTicket, Precondition, Source, StatusWrite, Transition,
    WriteResult, WriteTicket,
};
pub use fair::FairQueue;
pub use intake::INVALID_OBJECT;
pub use state::Counters;
pub use time::Now;
pub use tracker::{Census, Tracker};
