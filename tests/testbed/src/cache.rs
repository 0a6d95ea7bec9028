//! What every user of the testbed's cache needs: names for what is kept, and one maker at a time.

use crate::progress::Progress;
use anyhow::Context;
use std::{
    fs::{File, TryLockError},
    path::Path,
    thread,
    time::Duration,
};

const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);

/// Waits for the lock file and holds it until the result is dropped, or the process ends in
/// whatever way. `what` completes "waiting for another process that …".
pub(crate) fn lock(path: &Path, what: &str) -> anyhow::Result<File> {
    let context = || format!("locking {}", path.display());
    let file = File::create(path).with_context(context)?;
    let what = format!("waiting for another process that {what}");
    let mut progress = Progress::new(what, PROGRESS_INTERVAL);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                progress.tick();
                thread::sleep(Duration::from_millis(100));
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(context),
        }
    }
}

/// FNV-1a over the parts, each followed by its length, so that moving a byte from one part to the
/// next changes the hash. The standard library's hasher may differ between Rust releases.
pub(crate) fn hash(parts: &[&str]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    parts.iter().fold(0xcbf2_9ce4_8422_2325, |hash, part| {
        let hash = part.as_bytes().iter().fold(hash, step);
        part.len().to_le_bytes().iter().fold(hash, step)
    })
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn the_hash_is_the_same_everywhere_and_keeps_parts_apart() {
        assert_eq!(hash(&[]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(&["a", "b"]), hash(&["a", "b"]));
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
    }
}
