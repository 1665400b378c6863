//! A private temporary folder. Knows no command.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::types::id;

/// A folder that only this user can read, deleted on drop.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Creates a folder; `purpose` is a part of its name.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub(crate) fn create(purpose: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("sidetone-{purpose}-{}", id::random_suffix()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot create {}; set TMPDIR to use another folder", path.display()))?;
        Ok(Self(path))
    }

    /// Path of the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that remains is small and private, and the system deletes old temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
