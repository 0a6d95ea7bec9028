//! What happens in a [`World`](super::World) after something was sent, and when its time has come.

use crate::{
    CredentialRef, Deletion, FetchTicket, ObjectKey, PollRequest, StatusWrite, WriteResult,
    WriteTicket,
};
use image_export_api::ImageExportJob;
use std::sync::Arc;

/// What happens to a write or a deletion after it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Lands,
    LandsWithoutReply,
    /// The first attempt lands and its reply is lost; the client's own retry then meets a conflict.
    LandsThenConflict,
    /// The client gives up, but the API server still applies the write.
    LandsLate,
    /// The late landing itself, which is not answered.
    Landing,
    Lost,
    /// The API server answers 500.
    Failed,
    Throttled,
    Rejected,
    Conflict,
}

/// What happens in the world at a set time.
pub enum Due {
    Answer(Box<PollRequest>),
    Land(Box<StatusWrite>, Fate),
    Reply(WriteTicket, WriteResult),
    Remove(Box<Deletion>, Fate),
    Watch(Option<Box<ImageExportJob>>, ObjectKey, String),
    Read(Arc<CredentialRef>),
    Fetch(FetchTicket, ObjectKey),
    /// Others change a label.
    Touch(ObjectKey),
}
