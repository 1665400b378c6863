//! `state`: data that one run of the daemon leaves for the next, in one small JSON file that is always replaced as a
//! whole.
//!
//! Knows no call. Without the file, the journal counts as restored: delete the file after restoring a backup, so that
//! open calls get new epochs.

use std::io;

use serde::{Deserialize, Serialize};

use super::OpenError;
use super::config::Durability;
use super::folder::Folder;
use super::frame::{OLD_VERSION, VERSION, version_message};
use super::log::Storage;

/// Number of orders that are reserved at once. It is small in tests, so that they use up a block.
pub(super) const BLOCK: u64 = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// Upper bound of orders: at a million events per second it is reached after three centuries.
const MAX_ORDER: u64 = 1 << 53;
const FILE: &str = "state";
const DRAFT: &str = "state.new";

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Version of the whole folder's format.
    pub(super) version: u32,
    /// Set if some of the folder's files may have the previous version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) migrating: bool,
    /// Id of the machine's boot when the file was written; empty if the system has none.
    pub(super) boot_id: String,
    /// Set if the daemon shut down and synced everything.
    pub(super) clean: bool,
    /// What an acknowledged event of this run survives.
    pub(super) durability: Durability,
    /// Identifies the journal's history.
    pub(super) generation: u64,
    /// Upper bound of the orders that were assigned.
    pub(super) order: u64,
    /// Size of the directory when the daemon shut down, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) directory_bytes: Option<u64>,
}

impl State {
    /// The state of a new journal.
    pub(super) fn fresh(durability: Durability) -> Self {
        // Random, so that a cursor of an earlier journal in the same folder does not match. Leaves room for increments
        // up to 2^53.
        let generation = u64::from(rand::random::<u32>()) << 16 | 1;
        Self {
            version: VERSION.into(),
            migrating: false,
            boot_id: String::new(),
            clean: true,
            durability,
            generation,
            order: 1,
            directory_bytes: None,
        }
    }

    /// Reads the file if it exists; accepts this version and the previous one.
    pub(super) fn read(folder: &Folder) -> Result<Option<Self>, OpenError> {
        let path = folder.path().join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::Read { path, error }),
        };
        let damaged = |error: &dyn std::fmt::Display| OpenError::Damaged {
            path: path.clone(),
            message: format!("{error}; to use the journal without it, delete this file: open calls get new epochs"),
        };
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(&text).map_err(|error| damaged(&error))?;
        if version != u32::from(VERSION) && version != u32::from(OLD_VERSION) {
            let dir = folder.path().to_owned();
            return Err(OpenError::Version { dir, message: version_message(version) });
        }
        let state: Self = serde_json::from_slice(&text).map_err(|error| damaged(&error))?;
        if state.order > MAX_ORDER {
            return Err(damaged(&format!("order: expected at most {MAX_ORDER}, found {}", state.order)));
        }
        Ok(Some(state))
    }

    /// Replaces the file, and syncs that.
    pub(super) fn write(&self, storage: &Storage) -> io::Result<()> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        let file = storage.folder.create(DRAFT)?;
        storage.medium.write(&file, &text, 0)?;
        storage.medium.sync(&file)?;
        storage.folder.rename(DRAFT, FILE)
    }

    /// Returns true if events that the last run acknowledged may be lost: the machine went down before the daemon had
    /// shut down, and syncs were done in the background. Also true if the system has no boot id.
    pub(super) fn may_have_lost(&self, boot_id: &str) -> bool {
        let rebooted = self.boot_id.is_empty() || self.boot_id != boot_id;
        self.durability == Durability::Process && !self.clean && rebooted
    }
}

/// Id of the machine's present boot; empty if the system has none.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
