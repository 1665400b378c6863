//! A sink's position: its consumer has taken everything up to one commit `order`. Stored in a file.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant};

/// Minimum time between two stores of a position that moves. After a crash, frames since the last store are delivered
/// again.
const INTERVAL: Duration = Duration::from_millis(250);

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    order: u64,
}

/// A position and its file.
#[derive(Debug)]
pub(super) struct Position {
    file: PathBuf,
    order: u64,
    stored: u64,
    stored_at: Option<Instant>,
}

impl Position {
    /// Reads the position of sink `name`; without one it starts at `newest`. A position beyond `newest` belongs to a
    /// journal that no longer exists, and becomes `newest`.
    pub(super) fn load(dir: &Path, name: &str, newest: u64) -> io::Result<Self> {
        make_dir(dir)?;
        let file = dir.join(format!("{name}.json"));
        let order = match fs::read(&file) {
            Ok(bytes) => {
                let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| {
                    let message = format!("{}: {error}; delete the file to begin with new events", file.display());
                    io::Error::other(message)
                })?;
                stored.order.min(newest)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write(&file, newest)?;
                newest
            }
            Err(error) => return Err(error),
        };
        Ok(Self { file, order, stored: order, stored_at: None })
    }

    /// The consumer has taken everything up to this `order`.
    pub(super) fn order(&self) -> u64 {
        self.order
    }

    /// Records that everything up to `order` was taken; stores it when that is due.
    pub(super) async fn advance(&mut self, order: u64) {
        self.order = self.order.max(order);
        if self.stored_at.is_none_or(|at| at.elapsed() >= INTERVAL) {
            self.store().await;
        }
    }

    /// When a position that has moved is to be stored.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.order > self.stored).then(|| self.stored_at.map_or_else(Instant::now, |at| at + INTERVAL))
    }

    /// Stores the position now, if it has moved. A failure is logged and repeated later; after a restart, the consumer
    /// may then get some frames twice.
    pub(super) async fn store(&mut self) {
        if self.order == self.stored {
            return;
        }
        let (file, order) = (self.file.clone(), self.order);
        self.stored_at = Some(Instant::now());
        match tokio::task::spawn_blocking(move || write(&file, order)).await {
            Ok(Ok(())) => self.stored = order,
            Ok(Err(error)) => tracing::warn!(file = %self.file.display(), %error, "a sink's position could not be \
                stored"),
            Err(_) => {}
        }
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Replaces the file as a whole.
fn write(file: &Path, order: u64) -> io::Result<()> {
    let fresh = file.with_extension("json.new");
    let mut out = fs::File::create(&fresh)?;
    out.write_all(&serde_json::to_vec(&Stored { version: 1, order })?)?;
    out.sync_data()?;
    fs::rename(&fresh, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn position_begins_at_the_newest_event_and_survives_a_restart() {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path().join("sinks");
        let mut position = Position::load(&dir, "a", 7).expect("fresh");
        assert_eq!(position.order(), 7);
        assert_eq!(Position::load(&dir, "a", 9).expect("kept").order(), 7, "the first start is remembered");
        position.advance(8).await;
        // The next position is stored later, unless the disk took longer than the interval for the previous one.
        let mut newest = 8;
        while position.due().is_none() {
            newest += 1;
            assert!(newest < 1_000, "each one is stored at once");
            position.advance(newest).await;
        }
        position.store().await;
        assert!(position.due().is_none());
        assert_eq!(Position::load(&dir, "a", 2_000).expect("kept").order(), newest);
        assert_eq!(Position::load(&dir, "a", 3).expect("kept").order(), 3, "the journal was replaced");
        fs::write(dir.join("a.json"), "{").expect("broken");
        assert!(Position::load(&dir, "a", 2_000).expect_err("broken").to_string().contains("a.json"));
    }
}
