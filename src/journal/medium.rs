//! The file operations that can fail for lack of space or because of a broken disk, behind a trait so that tests can
//! make them fail.
//!
//! Knows no format. Reads are not here, because tests can damage the bytes of a file directly.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Writes, truncates and syncs files.
pub(super) trait Medium: Send + Sync {
    /// Writes all of `bytes` at `offset`. After an error, any part of the beginning may have been written.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Truncates `file` to `len` bytes.
    fn truncate(&self, file: &File, len: u64) -> io::Result<()>;
    /// Syncs the content and length of `file`, so that they survive a power loss.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Syncs everything that was written to the file system of `dir`.
    fn sync_all(&self, dir: &File) -> io::Result<()>;
}

/// The real disk.
pub(super) struct Disk;

impl Medium for Disk {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_all(&self, dir: &File) -> io::Result<()> {
        Ok(rustix::fs::syncfs(dir)?)
    }
}

/// The valid end of a file that only grows, and whether invalid data may follow it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct End {
    /// Length of the valid data, bytes.
    pub(super) len: u64,
    /// Set if the remains of a failed write after `len` could not be truncated: they are truncated before the next
    /// write.
    pub(super) dirty: bool,
}

impl End {
    /// Appends `bytes`, or leaves the file (or at least its valid part) unchanged.
    pub(super) fn append(&mut self, medium: &dyn Medium, file: &File, bytes: &[u8]) -> io::Result<()> {
        if self.dirty {
            medium.truncate(file, self.len)?;
            self.dirty = false;
        }
        match medium.write(file, bytes, self.len) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.cut(medium, file, self.len);
                Err(error)
            }
        }
    }

    /// Truncates the file to `len`; if that fails, the next append does it first.
    pub(super) fn cut(&mut self, medium: &dyn Medium, file: &File, len: u64) {
        self.len = len;
        self.dirty = medium.truncate(file, len).is_err();
        if self.dirty {
            // Zeros up to the end count as a torn write if the daemon is killed before the truncation; they need no
            // disk space.
            let behind = file.metadata().map_or(0, |metadata| metadata.len().saturating_sub(len));
            if let Err(error) = medium.write(file, &vec![0; behind as usize], len) {
                tracing::error!(%error, "the remains of a failed write can be neither truncated nor overwritten");
            }
        }
    }
}
