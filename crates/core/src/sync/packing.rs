//! How what the API server holds of an object is packed, as a part of it.

use super::{Edits, Remote, Sync};
use crate::{
    compact::Compact,
    pack::{Pack, Reader, Writer, pack_fields, pack_struct, unpack_fields},
    status::Snapshot,
};
use std::sync::Arc;

/// What is at rest alone is packed: [`Sync::is_at_rest`].
impl Pack for Sync {
    fn empty() -> Self {
        Self::new(Compact::Number(0))
    }

    fn is_empty(&self) -> bool {
        false
    }

    fn pack(&self, to: &mut Writer<'_>) {
        let Self {
            version,
            is_seen,
            remote: _,
            unowned: _,
            unconfirmed: _,
            stage: _,
            consecutive_conflicts,
            deletion_conflicts,
            is_fresh,
            consecutive_errors,
            edits,
        } = self;
        let acknowledged = self.acknowledged().map(|snapshot| &**snapshot);
        pack_fields!(
            to,
            version,
            is_seen,
            &acknowledged.cloned(),
            consecutive_conflicts,
            deletion_conflicts,
            is_fresh,
            consecutive_errors,
            &edits.as_deref().copied(),
        );
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        unpack_fields!(
            from,
            version,
            is_seen,
            acknowledged,
            consecutive_conflicts,
            deletion_conflicts,
            is_fresh,
            consecutive_errors,
            edits,
        );
        let acknowledged: Option<Snapshot> = acknowledged;
        let edits: Option<Edits> = edits;
        Self {
            is_seen,
            remote: match acknowledged {
                Some(snapshot) => Remote::Acknowledged(Arc::new(snapshot)),
                None => Remote::NotOurs(None),
            },
            consecutive_conflicts,
            deletion_conflicts,
            is_fresh,
            consecutive_errors,
            edits: edits.map(Box::new),
            ..Self::new(version)
        }
    }
}

pack_struct!(Edits { count, repair_at });
