//! What goes into the tracker and what comes out.

use crate::{
    keys::{JobKey, SecretKey},
    phase::Phase,
    quota::Charge,
};
use image_export_api::{CloudCredentialsRef, ImageExportJob, ImageExportJobStatus};
use image_export_model::{
    ConfigurationError, Failure, JobId, Observation, PriorAcceptance, ProjectId,
};
use std::{fmt, sync::Arc, time::Duration};

/// One watch: a namespace, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(pub u16);

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where credentials are: what all tokens, reads and quotas hang on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CredentialRef {
    /// Namespace of the object, hence of the Secret: references never leave it.
    pub namespace: Arc<str>,
    /// Secret and cloud entry.
    pub cloud: CloudCredentialsRef,
}

/// Why a Secret yields no credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialError {
    /// Its content is missing or invalid; reading it again helps only after somebody fixes it.
    Misconfigured(ConfigurationError),
    /// It cannot be read at the moment.
    Unavailable(Failure),
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A list began. An unfinished one before it counts for nothing.
    ListStarted(Source),
    /// An object was listed, added or changed.
    Applied(Source, Box<ImageExportJob>),
    /// An object that does not decode: present, but nothing can be said about it.
    Undecodable {
        /// Who saw it.
        source: Source,
        /// Where it is.
        key: ObjectKey,
        /// Its uid.
        uid: String,
        /// What does not decode.
        error: String,
    },
    /// A list is complete: what was not seen since its beginning is gone.
    Listed(Source),
    /// An object was deleted.
    Deleted(ObjectKey, Option<String>),
    /// The outcome of [`Effect::ReadCredential`]: a version that differs where the content does.
    CredentialRead(Arc<CredentialRef>, Result<u64, CredentialError>),
    /// The outcome of [`Effect::Poll`].
    Polled(PollTicket, Observation),
    /// The outcome of [`Effect::WriteStatus`] or [`Effect::Delete`].
    Wrote(WriteTicket, WriteResult),
    /// The outcome of [`Effect::Fetch`].
    Fetched(FetchTicket, FetchResult),
    /// Whether this process may act, at the start and at each change.
    Leading(bool),
    /// The process is about to end: no poll, read of a Secret or deletion is sent any more, only statuses
    /// and what confirms them.
    Stopping,
    /// Time has passed.
    Tick,
}

/// Something to do. Each is answered by exactly one [`Input`].
#[derive(Debug)]
pub enum Effect {
    /// Ask the cloud.
    Poll(Box<PollRequest>),
    /// Read a Secret and make a credential of it.
    ReadCredential(Arc<CredentialRef>),
    /// Write a status.
    WriteStatus(Box<StatusWrite>),
    /// Delete a finished object whose time to live is over.
    Delete(Box<Deletion>),
    /// Read an object, to settle how a write ended.
    Fetch(FetchTicket, ObjectKey),
}

/// What [`Tracker::handle`](crate::Tracker::handle) asks for.
#[derive(Debug, Default)]
pub struct Output {
    /// Each is answered by exactly one [`Input`].
    pub effects: Vec<Effect>,
    /// Kubernetes Events to publish; nothing answers them.
    pub events: Vec<ObjectEvent>,
    /// Ends, and troubles entered and left, to log and count; nothing answers them.
    pub transitions: Vec<Transition>,
}

/// Identifies a poll. Handed back unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollTicket {
    pub(crate) job: JobKey,
    pub(crate) sequence: u64,
    pub(crate) epoch: u32,
    pub(crate) charge: Charge,
    pub(crate) secret: SecretKey,
    pub(crate) credential_version: u64,
}

/// One query of a job.
#[derive(Debug)]
pub struct PollRequest {
    /// To hand back.
    pub ticket: PollTicket,
    /// The object that follows the job, for logs.
    pub key: ObjectKey,
    /// The credential, which was read before.
    pub credential: Arc<CredentialRef>,
    /// Project id.
    pub project: ProjectId,
    /// Job id.
    pub job: JobId,
    /// What the objects showed of the credential when this process first saw them.
    pub prior: PriorAcceptance,
    /// How long it was due before it was sent.
    pub late: Duration,
}

/// Identifies a write. Handed back unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteTicket {
    pub(crate) job: JobKey,
    pub(crate) sequence: u64,
    pub(crate) epoch: u32,
    pub(crate) namespace: Arc<str>,
}

/// Identifies a read. Handed back unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchTicket {
    pub(crate) job: JobKey,
    pub(crate) sequence: u64,
    pub(crate) namespace: Arc<str>,
}

/// One status to write.
#[derive(Debug)]
pub struct StatusWrite {
    /// To hand back.
    pub ticket: WriteTicket,
    /// Which object.
    pub key: ObjectKey,
    /// What keeps the write from landing on a state it was not decided for.
    pub precondition: Precondition,
    /// The whole status.
    pub status: ImageExportJobStatus,
}

/// One object to delete, if it is still this one.
#[derive(Debug)]
pub struct Deletion {
    /// To hand back.
    pub ticket: WriteTicket,
    /// Which object.
    pub key: ObjectKey,
    /// Precondition `uid`.
    pub uid: Arc<str>,
    /// Precondition `resourceVersion`. `None` for an object that others change all the time: it was just
    /// read, and is finished.
    pub version: Option<Arc<str>>,
}

/// What must hold for a write to land.
#[derive(Clone, Debug, PartialEq)]
pub enum Precondition {
    /// Replaces the status of the object with this `metadata.resourceVersion`: nothing at all may have changed.
    ResourceVersion(Arc<str>),
    /// JSON Patch with tests: for objects that others change all the time.
    Tests {
        /// `metadata.uid`
        uid: Arc<str>,
        /// `metadata.generation`
        generation: i64,
        /// `status` as last acknowledged; `None` where it had none.
        status: Option<Box<ImageExportJobStatus>>,
    },
}

/// How a write or a deletion ended.
#[derive(Debug)]
pub enum WriteResult {
    /// It landed.
    Written {
        /// The new resource version.
        version: String,
        /// The status as stored, which an older CRD may have pruned.
        status: Option<Box<ImageExportJobStatus>>,
    },
    /// The deletion is accepted: the object is gone, or goes when its finalizers let it.
    Deleted,
    /// The precondition held it back.
    Conflict,
    /// The object, or this incarnation of it, is gone.
    Gone,
    /// 429.
    Throttled(Option<Duration>),
    /// The API server will not have it: RBAC, an admission webhook, another schema.
    Rejected,
    /// No reply, or one that says the API server is in trouble: it may have landed.
    Unknown,
    /// 500, which may be this object's own trouble (an admission webhook that does not answer): it
    /// may have landed.
    Failed,
}

/// How a read ended.
#[derive(Debug)]
pub enum FetchResult {
    /// The object as it is.
    Found(Box<ImageExportJob>),
    /// There is none.
    Gone,
    /// No reply.
    Failed,
}

/// The API server has a status that shows an end, a trouble, or the end of a trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Of which object.
    pub key: ObjectKey,
    /// What its status showed before; `None`: nothing.
    pub before: Option<Phase>,
    /// What it shows now.
    pub after: Phase,
    /// The sentence, the same as in the conditions.
    pub message: String,
    /// The time from the begin of the job to its end, once both are known.
    pub took: Option<Duration>,
}

/// One Kubernetes Event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectEvent {
    /// Regarding which object.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: Arc<str>,
    /// Reason, the same word as in the conditions.
    pub reason: &'static str,
    /// Warning or Normal.
    pub warning: bool,
    /// The sentence, the same as in the conditions.
    pub note: String,
}
