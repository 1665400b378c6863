//! The journal's folder: its layout, its permissions, its lock.
//!
//! ```text
//! DIR/lock                     held while a daemon has the journal open; says which process
//! DIR/state                    see `state`
//! DIR/directory.log            see `directory`
//! DIR/calls/3f/c_42.log        one log a call, in 256 folders
//! DIR/calls/3f/c_42.migrated   its copy in this format, for as long as the folder is migrated (see `migrate`)
//! ```
//!
//! Does not know what is in the files. Everything is readable by its owner alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::OpenError;
use crate::types::CallId;

const CALLS: &str = "calls";
/// Time that a stopping daemon may take to release the lock.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// The journal's folder, locked as long as this value exists.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    handle: File,
    _lock: File,
}

impl Folder {
    /// Creates the folder if it does not exist, makes it private, and locks it.
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        let failed = |what: &'static str| move |error| OpenError::Folder { dir: dir.to_owned(), what, error };
        private_dir(dir).map_err(failed("create"))?;
        make_private(dir).map_err(failed("make private"))?;
        let lock = options().create(true).truncate(false).open(dir.join("lock")).map_err(failed("write to"))?;
        match exclusive(&lock) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let owner = fs::read_to_string(dir.join("lock")).unwrap_or_default();
                let owner = owner.trim().parse::<u32>().map_or(String::new(), |pid| format!(" (process {pid})"));
                return Err(OpenError::Locked { dir: dir.to_owned(), owner });
            }
            Err(error) => return Err(failed("lock")(error.into())),
        }
        let note = |mut lock: &File| {
            lock.set_len(0)?;
            writeln!(lock, "{}", std::process::id())
        };
        // The note only helps people, so a full disk must not prevent the start.
        drop(note(&lock));
        match make_shards(dir) {
            // Missing folders are created when the first log is created in them.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            made => made.map_err(failed("write to"))?,
        }
        let handle = File::open(dir).map_err(failed("open"))?;
        Ok(Self { dir: dir.to_owned(), handle, _lock: lock })
    }

    /// Path of the folder.
    pub(super) fn path(&self) -> &Path {
        &self.dir
    }

    /// Opens a file of the folder, if it exists.
    pub(super) fn existing(&self, name: &str) -> io::Result<Option<File>> {
        found(options().open(self.dir.join(name)))
    }

    /// Creates an empty file in the folder.
    pub(super) fn create(&self, name: &str) -> io::Result<File> {
        options().create(true).truncate(true).open(self.dir.join(name))
    }

    /// Renames a file over another one, and syncs the folder so that this survives a power loss.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.replace(from, to)?;
        self.sync()
    }

    /// Renames a file over another one.
    pub(super) fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    /// Syncs the folder, so that the names of its files survive a power loss.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    /// Removes a file of the folder, if it exists.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        found(fs::remove_file(self.dir.join(name))).map(drop)
    }

    /// The folder as a file.
    pub(super) fn handle(&self) -> &File {
        &self.handle
    }

    pub(super) fn log_path(&self, call: &CallId) -> PathBuf {
        self.shard_path(call).join(format!("{call}.log"))
    }

    fn shard_path(&self, call: &CallId) -> PathBuf {
        self.dir.join(CALLS).join(format!("{:02x}", shard(call)))
    }

    /// Opens a call's log, if it exists.
    pub(super) fn open_log(&self, call: &CallId) -> io::Result<Option<File>> {
        found(options().open(self.log_path(call)))
    }

    /// Creates a call's log. If a file with this name exists although the directory does not know the call (its entry
    /// was lost in a power loss), that file is renamed, not overwritten.
    pub(super) fn create_log(&self, call: &CallId) -> io::Result<File> {
        let path = self.log_path(call);
        match options().create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                private_dir(&self.shard_path(call))?;
                options().create_new(true).open(&path)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                tracing::warn!(path = %path.display(), "a log without an entry was renamed to .orphan");
                fs::rename(&path, path.with_extension("orphan"))?;
                options().create_new(true).open(&path)
            }
            other => other,
        }
    }

    /// Opens the file at `path`, which is one of [`Folder::log_files`].
    pub(super) fn open_path(&self, path: &Path) -> io::Result<File> {
        options().open(path)
    }

    /// Creates an empty file at `path`, beside one of [`Folder::log_files`].
    pub(super) fn create_path(&self, path: &Path) -> io::Result<File> {
        options().create(true).truncate(true).open(path)
    }

    /// Removes a call's log, if it exists.
    pub(super) fn remove_log(&self, call: &CallId) -> io::Result<()> {
        found(fs::remove_file(self.log_path(call))).map(drop)
    }

    /// Size of a call's log in bytes; 0 if it does not exist.
    pub(super) fn log_bytes(&self, call: &CallId) -> u64 {
        fs::metadata(self.log_path(call)).map_or(0, |metadata| metadata.len())
    }

    /// Syncs the folder of a call's new log, so that its name survives a power loss.
    pub(super) fn sync_log_name(&self, call: &CallId) -> io::Result<()> {
        File::open(self.shard_path(call))?.sync_all()
    }

    /// All files below `calls`.
    pub(super) fn log_files(&self) -> impl Iterator<Item = PathBuf> {
        let shards = fs::read_dir(self.dir.join(CALLS)).into_iter().flatten().flatten();
        shards.flat_map(|shard| fs::read_dir(shard.path()).into_iter().flatten().flatten()).map(|file| file.path())
    }
}

/// Number of the folder, of 256, that contains a call's log; also the shard of anything else that is sharded by call.
/// Part of the format.
pub(super) fn shard(call: &CallId) -> u8 {
    crc32fast::hash(call.as_str().as_bytes()) as u8
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Locks the file. A process that is just ending may keep the lock a moment longer in a forked child.
fn exclusive(lock: &File) -> rustix::io::Result<()> {
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < give_up => thread::sleep(LOCK_PATIENCE / 20),
            result => return result,
        }
    }
}

/// Creates the folders of the call logs, and syncs their names.
fn make_shards(dir: &Path) -> io::Result<()> {
    let calls = dir.join(CALLS);
    // `ff` is created last, so all of them exist.
    if calls.join("ff").is_dir() {
        return Ok(());
    }
    private_dir(&calls)?;
    for shard in 0..=u8::MAX {
        private_dir(&calls.join(format!("{shard:02x}")))?;
    }
    File::open(calls)?.sync_all()?;
    File::open(dir)?.sync_all()
}

fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Removes other users' permissions from the folder, unless it is shared by design (sticky, or another user's). The
/// files in it are private in either case.
fn make_private(dir: &Path) -> io::Result<()> {
    let metadata = fs::metadata(dir)?;
    let mode = metadata.mode();
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if mode & 0o077 != 0 && mode & 0o1000 == 0 && ours {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
