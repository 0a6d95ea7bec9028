//! Folders of unit tests.

use std::path::{Path, PathBuf};

/// A new folder below the system's temporary folder, removed in the end.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// `name`: one for each test.
    pub(super) fn new(name: &str) -> Self {
        let name = format!("image-export-query-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to the system.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
