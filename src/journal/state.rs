//! `state`: what one run of the daemon tells the next, in one small JSON file that is replaced whole.
//!
//! Knows no call. Without the file the journal counts as restored from somewhere else: delete it after putting a backup
//! in place, so that open calls get new epochs.

use std::io;

use serde::{Deserialize, Serialize};

use super::OpenError;
use super::config::Durability;
use super::folder::Folder;
use super::frame::{OLD_VERSION, VERSION, version_message};
use super::log::Ground;

/// How many orders are reserved at once; few in tests, so that they get to the end of it.
pub(super) const BLOCK: u64 = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// No journal comes to more: at a million events a second that takes three centuries.
const MAX_ORDER: u64 = 1 << 53;
const FILE: &str = "state";
const DRAFT: &str = "state.new";

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Version of the whole folder's format.
    pub(super) version: u32,
    /// Some of the folder's files may have the version before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) migrating: bool,
    /// The machine's boot when it was written; empty where the system does not tell.
    pub(super) boot_id: String,
    /// The daemon shut down, and synced everything before.
    pub(super) clean: bool,
    /// What an acknowledged event of this run survives.
    pub(super) durability: Durability,
    /// Names the journal's history.
    pub(super) generation: u64,
    /// No order at or above it was handed out.
    pub(super) order: u64,
    /// Bytes of the directory when the daemon shut down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) directory_bytes: Option<u64>,
}

impl State {
    /// That of a journal that never was.
    pub(super) fn fresh(durability: Durability) -> Self {
        // Random, so that a cursor of an earlier journal in the same place does not fit; room to count up in 2^53.
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

    /// Reads the file, if it is there: one of this version, or of the version before.
    pub(super) fn read(folder: &Folder) -> Result<Option<Self>, OpenError> {
        let path = folder.path().join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::Read { path, error }),
        };
        let damaged = |error: &dyn std::fmt::Display| OpenError::Damaged {
            path: path.clone(),
            message: format!(
                "{error}; if this journal is to be used as it is, delete this file: open calls get new epochs"
            ),
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
            return Err(damaged(&format!("order: {} is beyond any journal", state.order)));
        }
        Ok(Some(state))
    }

    /// Replaces the file, and makes that survive the loss of power.
    pub(super) fn write(&self, ground: &Ground) -> io::Result<()> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        let file = ground.folder.create(DRAFT)?;
        ground.medium.write(&file, &text, 0)?;
        ground.medium.sync(&file)?;
        ground.folder.rename(DRAFT, FILE)
    }

    /// Whether what the last run acknowledged may have been lost: the machine went down without the daemon having shut
    /// down, and syncing was left to the background. A system that does not tell its boots may have.
    pub(super) fn may_have_lost(&self, boot_id: &str) -> bool {
        let rebooted = self.boot_id.is_empty() || self.boot_id != boot_id;
        self.durability == Durability::Process && !self.clean && rebooted
    }
}

/// The machine's present boot; empty where the system does not tell.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
