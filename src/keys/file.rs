//! The key file: JSON, readable by its owner only, always replaced as a whole.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{CONFIGURED, Identity, KeyError, Scope, digest};
use crate::base::owner;
use crate::base::time::{rfc3339_ms, unix_ms};
use crate::types::id;

/// One key, as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// The key's name, never used twice.
    pub name: String,
    /// Names of its scopes.
    pub scopes: Vec<String>,
    /// SHA-256 of the key, in hex.
    pub sha256: String,
    /// When the key was created, RFC 3339.
    pub created_at: String,
    /// When the key was revoked, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    keys: Vec<Entry>,
}

/// Identifies one state of the file: inode, size, and modification time in seconds and nanoseconds.
pub(super) type Stamp = (u64, u64, i64, i64);

/// The keys that are not revoked, by hash.
#[derive(Debug, Default)]
pub(super) struct Table {
    live: HashMap<[u8; 32], Identity>,
    any: bool,
}

impl Table {
    /// Returns true if there is no key, not even a revoked one.
    pub(super) fn is_empty(&self) -> bool {
        !self.any
    }

    /// Replaces `old`. A key that still exists keeps its revocation token; the token of one that does not is cancelled.
    pub(super) fn replace(mut self, old: &Self) -> Self {
        for (hash, identity) in &old.live {
            match self.live.get_mut(hash) {
                Some(same) => same.revoked = Arc::clone(&identity.revoked),
                None => identity.revoked.cancel(),
            }
        }
        self
    }

    pub(super) fn named(&self, name: &str) -> Option<Identity> {
        self.live.values().find(|identity| &*identity.name == name).cloned()
    }

    pub(super) fn closed() -> Self {
        Self { live: HashMap::new(), any: true }
    }

    pub(super) fn find(&self, hash: &[u8; 32]) -> Option<Identity> {
        self.live.get(hash).cloned()
    }
}

/// The file's stamp; `None` if the file does not exist.
pub(super) fn stamp(path: &Path) -> Result<Option<Stamp>, KeyError> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KeyError::File { path: path.to_owned(), error }),
    }
}

pub(super) fn read(path: &Path) -> Result<Table, KeyError> {
    let mut table = Table::default();
    for entry in list(path)? {
        table.any = true;
        if entry.revoked_at.is_some() {
            continue;
        }
        let mut hash = [0; 32];
        let scopes: Option<Vec<Scope>> = entry.scopes.iter().map(|scope| Scope::parse(scope)).collect();
        match (hex::decode_to_slice(&entry.sha256, &mut hash), scopes) {
            (Ok(()), Some(scopes)) => {
                table.live.insert(hash, Identity::new(&entry.name, scopes));
            }
            _ => {
                let reason = format!("key {:?} has no SHA-256 or an unknown scope", entry.name);
                return Err(KeyError::Damaged { path: path.to_owned(), reason });
            }
        }
    }
    Ok(table)
}

/// If the file belongs to another user, adds that to the error.
fn unreadable(path: &Path, error: std::io::Error) -> KeyError {
    let error = match fs::metadata(path) {
        Ok(meta) if meta.uid() != owner::effective_uid() => {
            let (theirs, ours) = (owner::user(meta.uid()), owner::user(owner::effective_uid()));
            std::io::Error::new(
                error.kind(),
                format!(
                    "{error}; the file belongs to {theirs}, but this program runs \
                as {ours}"
                ),
            )
        }
        _ => error,
    };
    KeyError::File { path: path.to_owned(), error }
}

/// All keys, including revoked ones, in the order of their creation.
///
/// # Errors
/// The file exists and cannot be read.
pub fn list(path: &Path) -> Result<Vec<Entry>, KeyError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(path, error)),
    };
    let file: File = serde_json::from_str(&text)
        .map_err(|error| KeyError::Damaged { path: path.to_owned(), reason: error.to_string() })?;
    if file.version != 1 {
        let reason = format!("version {}, expected 1", file.version);
        return Err(KeyError::Damaged { path: path.to_owned(), reason });
    }
    Ok(file.keys)
}

/// Creates a key and returns it; it cannot be read again.
///
/// # Errors
/// The name is invalid or taken, or the file cannot be written.
pub fn create(path: &Path, name: &str, scopes: &[Scope]) -> Result<String, KeyError> {
    id::check(name).map_err(|error| KeyError::Name(error.to_string()))?;
    let key = format!("sk_{}{}", id::random_suffix(), id::random_suffix());
    change(path, |keys| {
        if name == CONFIGURED || keys.iter().any(|entry| entry.name == name) {
            return Err(KeyError::Taken(name.to_owned()));
        }
        keys.push(Entry {
            name: name.to_owned(),
            scopes: scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            sha256: hex::encode(digest(&key)),
            created_at: rfc3339_ms(unix_ms()),
            revoked_at: None,
        });
        Ok(())
    })?;
    Ok(key)
}

/// Revokes a key permanently.
///
/// # Errors
/// No such key, or the file cannot be written.
pub fn revoke(path: &Path, name: &str) -> Result<(), KeyError> {
    change(path, |keys| {
        let entry = keys.iter_mut().find(|entry| entry.name == name);
        let entry = entry.ok_or_else(|| KeyError::Unknown(name.to_owned()))?;
        entry.revoked_at.get_or_insert_with(|| rfc3339_ms(unix_ms()));
        Ok(())
    })
}

/// Changes the file under a lock file beside it, so that two concurrent commands both take effect.
fn change(path: &Path, change: impl FnOnce(&mut Vec<Entry>) -> Result<(), KeyError>) -> Result<(), KeyError> {
    let failed = |error| KeyError::File { path: path.to_owned(), error };
    // Root makes the files for the folder's owner: a daemon that cannot read them would let nobody in.
    let owner = match path.parent() {
        None => None,
        Some(folder) => {
            let owner = owner::writer(folder)?;
            owner::create_folder(folder, owner).map_err(failed)?;
            owner
        }
    };
    let private = || {
        let mut options = fs::OpenOptions::new();
        options.create(true).write(true).mode(0o600);
        options
    };
    let lock_path = path.with_extension("lock");
    let lock = private().truncate(false).open(&lock_path).map_err(failed)?;
    owner::give(&lock_path, owner).map_err(failed)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    let mut keys = list(path)?;
    change(&mut keys)?;
    let text = serde_json::to_string_pretty(&File { version: 1, keys })
        .map_err(|error| KeyError::Damaged { path: path.to_owned(), reason: error.to_string() })?;
    let fresh = path.with_extension("new");
    let mut file = private().truncate(true).open(&fresh).map_err(failed)?;
    owner::give(&fresh, owner).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&fresh, path).map_err(failed)
}
