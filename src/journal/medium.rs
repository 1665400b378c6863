//! The file operations that can fail for lack of room or of a working disk, behind one seam so that tests can make
//! them fail.
//!
//! Knows no format. Reads are not here: what they can meet is in the bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Writes, cuts and syncs files.
pub(super) trait Medium: Send + Sync {
    /// Writes all of `bytes` at `offset`. After an error any prefix of them may be there.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts `file` to `len` bytes.
    fn truncate(&self, file: &File, len: u64) -> io::Result<()>;
    /// Makes content and length of `file` survive the loss of power.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Makes all that was written to the file system of `dir` survive the loss of power.
    fn sync_all(&self, dir: &File) -> io::Result<()>;
}

/// The real one.
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

/// The good end of a file that only grows, and whether something bad may lie behind it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct End {
    /// Bytes that count.
    pub(super) len: u64,
    /// What failed writes left behind `len` could not be cut: nothing is written before it is.
    pub(super) dirty: bool,
}

impl End {
    /// Appends `bytes`, or leaves the file (or at least its good part) as it was.
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

    /// Takes the file back to `len`; where that fails, the next append does it first.
    pub(super) fn cut(&mut self, medium: &dyn Medium, file: &File, len: u64) {
        self.len = len;
        self.dirty = medium.truncate(file, len).is_err();
        if self.dirty {
            // Zeros up to the end count as torn, should the daemon be killed before; they take no room.
            let behind = file.metadata().map_or(0, |metadata| metadata.len().saturating_sub(len));
            if let Err(error) = medium.write(file, &vec![0; behind as usize], len) {
                tracing::error!(%error, "a failed write can neither be cut nor be blotted out");
            }
        }
    }
}
