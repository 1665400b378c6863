//! `[record]`: writes live sessions to files as they arrive, in the format of recordings.
//!
//! A file holds one connection of one stream, as its decoder received it. After a reconnect, a restart of the daemon,
//! or when a file is full, the next file begins. Recording never makes a session wait: frames go through a bounded
//! queue to a thread that writes them. Frames that the queue or the disk cannot take are dropped, counted and logged.
//! Every write ends with a whole line, so that a killed daemon leaves files that can be replayed.
//!
//! Knows no content of a frame, except the lists `words`, which it may leave out.

#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use sha2::{Digest as _, Sha256};
use toml::Value;

use self::writer::Writer;
use crate::base::metric::Register as _;
use crate::base::settings::{Problems, Section};
use crate::base::ws::Utf8Bytes;
use crate::types::{CallId, StreamId};

/// Maximum number of frames that wait for the disk.
const QUEUE: usize = 8192;

/// Section `[record]`.
#[derive(Debug, Clone)]
pub struct RecordConfig {
    /// Folder of the files: `CALL.STREAM.jsonl`, then `CALL.STREAM.2.jsonl` and so on; see [`stem`].
    pub dir: PathBuf,
    /// Set if words are recorded; otherwise `words` is an empty list.
    pub words: bool,
    /// At this size the next file begins, bytes.
    pub max_file_bytes: u64,
}

impl RecordConfig {
    /// Reads the section; relative paths are resolved against `base`. `None` if there is no section: nothing is
    /// recorded.
    pub fn read(value: Option<Value>, base: &Path, problems: &mut Problems) -> Option<Self> {
        value.as_ref()?;
        let mut section = Section::new("record", value, problems);
        let dir = section.string("dir");
        if dir.is_none() && !section.has("dir") {
            section.problem("dir", "required, the folder for recordings");
        }
        let words = section.boolean("words").unwrap_or(true);
        let max_file_bytes = section.integer("max_file_bytes", 4096..=1 << 40).unwrap_or(256 << 20);
        section.finish();
        Some(Self { dir: base.join(dir?), words, max_file_bytes })
    }
}

/// Longest stem of a file name, bytes. File systems allow 255 for the whole name, and `.N.jsonl` follows.
const STEM_BYTES: usize = 220;

/// Stem of a stream's file names, unique per call and stream: `CALL.STREAM`, with dots in the ids escaped as `%2E`. A stem
/// over the limit is truncated and gets a hash.
fn stem(call: &CallId, stream: &StreamId) -> String {
    let plain = |id: &str| id.replace('.', "%2E");
    let (call, stream) = (plain(call.as_str()), plain(stream.as_str()));
    let stem = format!("{call}.{stream}");
    if stem.len() <= STEM_BYTES {
        return stem;
    }
    // The name is unambiguous, because in other stems a percent sign is always followed by `2E`.
    let hash = hex::encode(&Sha256::digest(&stem)[..16]);
    let part = |id: &str| id[..id.len().min((STEM_BYTES - 2 - hash.len()) / 2)].to_owned();
    format!("{}.{}%{hash}", part(&call), part(&stream))
}

struct Line {
    track: Arc<Name>,
    at: Duration,
    /// `None` marks the end of the track.
    message: Option<Utf8Bytes>,
}

#[derive(Debug)]
struct Name {
    number: u64,
    stem: String,
    dialect: &'static str,
}

/// Records to a folder, or does nothing if recording is off. Clones write to the same folder.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    queue: Option<SyncSender<Line>>,
    tracks: Arc<AtomicU64>,
    dropped: Counter<u64, AtomicU64>,
}

impl Recorder {
    /// Starts the writing thread, if recording is on.
    ///
    /// # Errors
    /// The folder cannot be made, or the thread cannot be started.
    pub fn start(config: Option<RecordConfig>, registry: &mut Registry) -> std::io::Result<Self> {
        let dropped: Counter<u64, AtomicU64> =
            registry.metric("sidetone_record_dropped_frames", "Frames that were not recorded");
        let Some(config) = config else { return Ok(Self { dropped, ..Self::default() }) };
        std::fs::create_dir_all(&config.dir)?;
        let (queue, lines) = sync_channel(QUEUE);
        let writer = Writer::new(config, dropped.clone());
        std::thread::Builder::new().name("record".to_owned()).spawn(move || writer.run(&lines))?;
        Ok(Self { queue: Some(queue), tracks: Arc::default(), dropped })
    }

    /// The track of one connection of a stream; `None` if recording is off.
    pub fn track(&self, call: &CallId, stream: &StreamId, dialect: &'static str) -> Option<Track> {
        let queue = self.queue.clone()?;
        let number = self.tracks.fetch_add(1, Ordering::Relaxed);
        let name = Arc::new(Name { number, stem: stem(call, stream), dialect });
        Some(Track { name, queue, dropped: self.dropped.clone(), began: Instant::now() })
    }
}

/// A connection that is recorded. Dropping it ends its track.
#[derive(Debug)]
pub struct Track {
    name: Arc<Name>,
    queue: SyncSender<Line>,
    dropped: Counter<u64, AtomicU64>,
    began: Instant,
}

impl Track {
    /// Records a frame, or counts it as dropped if the queue is full. Never waits.
    pub fn frame(&self, message: &Utf8Bytes) {
        if !self.put(Some(message.clone())) {
            self.dropped.inc();
        }
    }

    fn put(&self, message: Option<Utf8Bytes>) -> bool {
        self.queue.try_send(Line { track: Arc::clone(&self.name), at: self.began.elapsed(), message }).is_ok()
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        // If the queue is full, the writer forgets the track later by itself.
        self.put(None);
    }
}
