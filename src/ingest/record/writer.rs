//! The thread that writes tracks to their files.
//!
//! Knows no session: frames come by a queue.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use serde::de::IgnoredAny;

use super::{Line, Name, RecordConfig};
use crate::base::surrogates;
use crate::recording::{self, Header};

/// Maximum number of open files.
const MAX_OPEN: usize = 256;
/// A track that was never closed is forgotten after this long without a frame.
const FORGET: Duration = Duration::from_secs(3600);
/// Frame loss is logged at most once in this interval.
const QUIET: Duration = Duration::from_secs(60);
/// Lines are gathered up to this size before a write, bytes.
const BATCH_BYTES: usize = 64 << 10;

/// The newest file of a track.
pub(super) struct Open {
    name: Arc<Name>,
    path: PathBuf,
    pub(super) file: Option<File>,
    last: Instant,
    /// Size of the whole lines in the file, bytes.
    bytes: u64,
    number: u32,
    /// Lines that are not written yet, their number, and the length of the first one if it is the file's first.
    pending: Vec<u8>,
    lines: u64,
    header: usize,
}

/// The state of the writing thread.
pub(super) struct Writer {
    config: RecordConfig,
    pub(super) open: HashMap<u64, Open>,
    /// When frames were last lost.
    pub(super) lost: Option<Instant>,
    dropped: Counter<u64, AtomicU64>,
}

impl Writer {
    pub(super) fn new(config: RecordConfig, dropped: Counter<u64, AtomicU64>) -> Self {
        Self { config, open: HashMap::new(), lost: None, dropped }
    }

    /// Writes lines until their senders are dropped.
    pub(super) fn run(mut self, lines: &Receiver<Line>) {
        while let Ok(first) = lines.recv() {
            let (mut gathered, mut over) = (0, Vec::new());
            let mut next = Some(first);
            while let Some(line) = next.take() {
                match &line.message {
                    Some(message) => gathered += self.add(&line, message),
                    None => over.push(line.track.number),
                }
                if gathered < BATCH_BYTES {
                    next = lines.try_recv().ok();
                }
            }
            let all: Vec<u64> = self.open.keys().copied().collect();
            all.into_iter().for_each(|track| self.flush(track));
            for track in over {
                self.open.remove(&track);
            }
            if self.open.len() > MAX_OPEN {
                // A file is opened again when its stream continues; a track that does not continue is forgotten.
                let now = Instant::now();
                self.open.retain(|_, track| now.duration_since(track.last) < FORGET);
                self.open.values_mut().for_each(|track| track.file = None);
            }
        }
    }

    /// Adds a line to its track's file, and begins a file if there is none or the last one is full. Returns the line's
    /// length.
    pub(super) fn add(&mut self, line: &Line, message: &str) -> usize {
        let message = if self.config.words { message.to_owned() } else { without_words(message) };
        // A line of a recording must contain a JSON object.
        if !message.trim_ascii_start().starts_with('{') || serde_json::from_str::<IgnoredAny>(&message).is_err() {
            return 0;
        }
        let mut text = recording::write_frame(line.at, &message);
        text.push('\n');
        let track = line.track.number;
        let mut number = 1;
        let limit = self.config.max_file_bytes;
        if let Some(open) = self.open.get(&track)
            && open.bytes + (open.pending.len() + text.len()) as u64 > limit
            && open.bytes + open.lines > 0
        {
            number = open.number + 1;
            self.flush(track);
            self.open.remove(&track);
        }
        let open = match self.open.entry(track) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(vacant) => match begin(&self.config.dir, &line.track, number) {
                Ok(open) => vacant.insert(open),
                Err(error) => {
                    self.lost(1, &line.track, &error);
                    return text.len();
                }
            },
        };
        open.pending.extend_from_slice(text.as_bytes());
        open.lines += 1;
        open.last = Instant::now();
        text.len()
    }

    /// Writes the pending lines, or counts them as lost: they are not kept, because that would fill the memory.
    pub(super) fn flush(&mut self, track: u64) {
        let Some(open) = self.open.get_mut(&track).filter(|open| open.lines > 0) else { return };
        let (lines, written) = (open.lines, open.write());
        let name = Arc::clone(&open.name);
        if let Err(error) = written {
            // A file that was deleted is not made again: the next frame begins another one.
            if error.kind() == std::io::ErrorKind::NotFound {
                self.open.remove(&track);
            }
            self.lost(lines, &name, &error);
        }
    }

    fn lost(&mut self, frames: u64, track: &Name, error: &std::io::Error) {
        self.dropped.inc_by(frames);
        let now = Instant::now();
        // Logged once, not for every frame, nor each time some space becomes free and is used up.
        if self.lost.replace(now).is_none_or(|before| now.duration_since(before) > QUIET) {
            tracing::warn!(%error, track = track.stem, "frames could not be recorded; the sessions continue");
        }
    }
}

impl Open {
    /// Writes the pending lines completely or not at all. Afterwards nothing is pending, except the first line of a
    /// file that could not be made yet.
    fn write(&mut self) -> std::io::Result<()> {
        let result = self.append();
        self.lines = 0;
        match result {
            Ok(()) => {
                self.bytes += self.pending.len() as u64;
                self.header = 0;
                self.pending.clear();
            }
            Err(_) => self.pending.truncate(self.header),
        }
        result
    }

    fn append(&mut self) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            closed => closed.insert(OpenOptions::new().append(true).open(&self.path)?),
        };
        let written = file.write_all(&self.pending);
        if written.is_err() {
            // An incomplete line would make the following lines unreadable. If the truncation fails too, the file gets
            // no more lines.
            file.set_len(self.bytes)?;
        }
        written
    }
}

/// Prepares the stream's next file, with its first line pending.
fn begin(dir: &Path, name: &Arc<Name>, number: u32) -> std::io::Result<Open> {
    let mut number = number;
    loop {
        let stem = &name.stem;
        let path = dir.join(if number == 1 { format!("{stem}.jsonl") } else { format!("{stem}.{number}.jsonl") });
        match OpenOptions::new().create_new(true).append(true).open(&path) {
            Ok(file) => {
                let header = Header { dialect: name.dialect.to_owned(), ..Header::default() };
                let mut pending = recording::write_header(&header).into_bytes();
                pending.push(b'\n');
                let header = pending.len();
                let (name, file) = (Arc::clone(name), Some(file));
                return Ok(Open {
                    name,
                    path,
                    file,
                    last: Instant::now(),
                    bytes: 0,
                    number,
                    pending,
                    lines: 0,
                    header,
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// `message`, with every list `words` made empty.
fn without_words(message: &str) -> String {
    fn clear(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, field) in fields {
                    match field {
                        serde_json::Value::Array(words) if name == "words" => words.clear(),
                        field => clear(field),
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(clear),
            _ => {}
        }
    }
    let Ok(mut value) = surrogates::from_str::<serde_json::Value>(message) else { return message.to_owned() };
    clear(&mut value);
    value.to_string()
}
