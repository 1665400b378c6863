//! The hub: the journal's live tail.
//!
//! It keeps the newest frames (shared, with a limit in bytes) and wakes readers. A [`Reader`] is a set of positions:
//! the newest frames come from memory, older ones from the journal, by one code path; resuming only sets a position. A
//! slow reader falls behind without affecting others. Only live frames (partials and insight deltas) bypass the
//! journal, through a small lossy buffer per reader.
//!
//! Does not know subscriptions, sockets or wire errors. Publishing never waits for a reader, wakes only readers that want
//! the frames, each once, and encodes nothing.
//!
//! Two kinds of interest: [`Interest::Calls`], a position (`seq`) in each of some calls, and [`Interest::All`], one
//! position (`order`) in everything.

mod all;
mod cursor;
mod filter;
mod frame;
mod mailbox;
mod merge;
mod named;
mod reader;
mod ring;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod wants;
mod watchers;

use std::sync::Arc;

use bytes::Bytes;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

pub use cursor::Cursor;
pub use filter::{Filter, Include, contains};
pub use frame::Frame;
pub use reader::{Batch, Interest, Item, Reader};
pub use wants::Wants;

use self::ring::Rings;
use crate::base::metric::Register as _;
use crate::base::ws::Utf8Bytes;
use crate::journal::{Record, Store, Tail};
use crate::protocol::push::Members;
use crate::protocol::tag;
use crate::types::{CallId, Seq};

/// Limits of what the hub keeps in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Maximum size of a call's newest frames, bytes; the newest four are always kept, as long as `ring_bytes` allows.
    pub call_bytes: usize,
    /// Maximum size of the newest frames of all calls together, bytes.
    pub ring_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { call_bytes: 64 * 1024, ring_bytes: 4 * 1024 * 1024 }
    }
}

/// Kind of a live frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveKind {
    /// `turn.partial`
    Partial,
    /// `insight.delta`
    Delta {
        /// The analysis that makes the insight.
        analysis: Arc<str>,
    },
}

/// A frame that has no `seq` and is not stored.
#[derive(Debug, Clone)]
pub struct LiveFrame {
    pub kind: LiveKind,
    /// The wire form: one JSON object, without `subscription`.
    pub frame: Bytes,
}

/// A live frame, as readers share it.
#[derive(Debug)]
pub struct Live {
    pub call: CallId,
    pub kind: LiveKind,
    /// The wire form.
    pub text: Utf8Bytes,
}

impl Live {
    /// The frame as it goes to one reader.
    pub fn push(&self, members: &Members, cursor: Option<Cursor>) -> Utf8Bytes {
        let tag = match self.kind {
            LiveKind::Partial => tag::TurnPartial::TEXT,
            LiveKind::Delta { .. } => tag::InsightDelta::TEXT,
        };
        members.write(tag, &self.text, cursor, None).map_or_else(|| self.text.clone(), Utf8Bytes::from)
    }
}

/// Numbers of live frames for which a reader's buffer had no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    pub partials: u64,
    pub deltas: u64,
}

impl Dropped {
    fn count(&mut self, kind: &LiveKind) {
        match kind {
            LiveKind::Partial => self.partials += 1,
            LiveKind::Delta { .. } => self.deltas += 1,
        }
    }
}

/// Why a reader cannot continue.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HubError {
    /// The events after the reader's position have left retention, or the call was erased. The reader continues without
    /// that call.
    #[error("call {call}: the events after event {after} were deleted by retention")]
    Gone {
        call: CallId,
        /// The reader's position in it.
        after: Seq,
    },
    /// The call's log is damaged after the reader's position. The reader continues without that call.
    #[error("call {call}: {message}")]
    Damaged {
        call: CallId,
        /// The journal's error.
        message: String,
    },
    /// The journal cannot be read now. Nothing is lost: try again later.
    #[error("the journal cannot be read: {0}")]
    Unavailable(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FromLabel {
    from: &'static str,
}

/// `sidetone_hub_readers`, `sidetone_hub_ring_bytes`, `sidetone_hub_wakeups_total`, `sidetone_hub_read_frames_total{from}`,
/// `sidetone_hub_dropped_partials_total`, `sidetone_hub_dropped_deltas_total`.
#[derive(Debug, Clone)]
pub struct Metrics {
    readers: Gauge,
    ring_bytes: Gauge,
    wakeups: Counter,
    from_memory: Counter,
    from_journal: Counter,
    dropped_partials: Counter,
    dropped_deltas: Counter,
}

impl Metrics {
    /// Registers all metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let read: Family<FromLabel, Counter> =
            registry.metric("sidetone_hub_read_frames", "Frames that readers took, by source");
        // One statement each: the value that `get_or_create` returns holds the family's lock.
        let from_memory = read.get_or_create(&FromLabel { from: "memory" }).clone();
        let from_journal = read.get_or_create(&FromLabel { from: "journal" }).clone();
        Self {
            readers: registry.metric("sidetone_hub_readers", "Readers of the journal's tail"),
            ring_bytes: registry.metric("sidetone_hub_ring_bytes", "Bytes of the newest frames kept in memory"),
            wakeups: registry.metric("sidetone_hub_wakeups", "Times that readers were woken"),
            from_memory,
            from_journal,
            dropped_partials: registry
                .metric("sidetone_hub_dropped_partials", "Partials that a slow reader did not get"),
            dropped_deltas: registry
                .metric("sidetone_hub_dropped_deltas", "Insight deltas that a slow reader did not get"),
        }
    }
}

struct Inner {
    journal: Arc<dyn Store>,
    rings: Rings,
    metrics: Metrics,
}

/// The journal's live tail. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

impl Hub {
    /// Creates a hub over `journal`. It receives commits once it is passed to [`crate::journal::Store::set_tail`],
    /// which must be done before the first append.
    pub fn new(journal: Arc<dyn Store>, config: Config, metrics: Metrics) -> Self {
        let rings = Rings::new(config, journal.order());
        Self(Arc::new(Inner { journal, rings, metrics }))
    }

    /// Passes a live frame to the readers of `call` that want its kind. Never waits; a reader whose buffer is full
    /// loses its oldest live frames, and its next batch says how many.
    pub fn live(&self, call: &CallId, frame: LiveFrame) {
        self.0.metrics.wakeups.inc_by(self.0.rings.live(call, frame));
    }

    /// Returns true if any reader of `call` wants live frames of this kind; otherwise they need not be encoded.
    pub fn wants(&self, call: &CallId, kind: &LiveKind) -> bool {
        self.0.rings.wants(call, kind)
    }

    /// A reader that is woken for the kinds that it `wants`. Its batches may contain other kinds too.
    pub fn reader(&self, interest: Interest, wants: Wants) -> Reader {
        self.reader_with(interest, wants, Arc::new(Notify::new()))
    }

    /// A reader that wakes `notify`: one task can wait for several readers.
    pub fn reader_with(&self, interest: Interest, wants: Wants, notify: Arc<Notify>) -> Reader {
        Reader::new(Arc::clone(&self.0), interest, wants, notify)
    }

    /// The newest `insight.updated` of a rolling analysis, if the hub remembers it; older ones are superseded.
    pub fn newest_insight(&self, call: &CallId, analysis: &str) -> Option<Seq> {
        self.0.rings.newest_insight(call, analysis)
    }

    /// The newest `order` that readers can get.
    pub fn newest(&self) -> u64 {
        self.0.rings.newest()
    }

    /// The journal behind the hub.
    pub fn journal(&self) -> &Arc<dyn Store> {
        &self.0.journal
    }
}

impl Tail for Hub {
    fn committed(&self, call: &CallId, records: &[Arc<Record>]) {
        let (bytes, woken) = self.0.rings.publish(call, records);
        self.0.metrics.wakeups.inc_by(woken);
        self.0.metrics.ring_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn erased(&self, call: &CallId) {
        self.0.rings.erase(call);
    }
}
