//! An index of a call's log: which record contains the present state of each turn. With it, any page of turns is read
//! from the log without rebuilding the call. It is made by one pass over the log, and extended from where it was.
//!
//! Knows no session. Functions that decode many records must run on threads that serve no clients.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::call::outline::{Newest, Outline};
use crate::call::record::{self, Decoded};
use crate::journal::{CallState as State, JournalError, Record, Store};
use crate::protocol::Event;
use crate::protocol::event::Kind;
use crate::types::{CallId, Seq, Turn, TurnNo};

/// Bytes of a log that are read and indexed before other tasks run.
pub(super) const PIECE_BYTES: usize = 1024 * 1024;
/// Number of bytes that are read at once to find single records, because their neighbours are often needed next.
const NEAR_BYTES: usize = 16 * 1024;
/// Number of turns that are looked up and decoded at once, so that a page that reaches its size limit reads little more
/// than it needs.
const PART: usize = 64;

/// The index of one call's log, up to one event.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// Everything but turns that is shown of a call.
    pub(super) outline: Outline,
    /// The newest record of each turn; empty if only the outline is needed.
    turns: Vec<Seq>,
    /// Set if turns are indexed.
    with_turns: bool,
    /// Set if the log cannot be read any further.
    pub(super) damaged: bool,
}

impl Index {
    /// An empty index.
    pub(super) fn new() -> Self {
        Self { with_turns: true, ..Self::default() }
    }

    /// An index without turns that continues from the directory's outline.
    pub(super) fn without_turns(outline: Outline) -> Self {
        Self { outline, ..Self::default() }
    }

    /// Adds the next piece of the log; returns true if there may be more.
    ///
    /// # Errors
    /// The log cannot be read now, or does not exist.
    pub(super) fn extend(&mut self, read: Result<Vec<Arc<Record>>, JournalError>) -> Result<bool, JournalError> {
        match read {
            Ok(records) if records.is_empty() => return Ok(false),
            Ok(records) => records.iter().for_each(|stored| self.take(stored)),
            Err(JournalError::Damaged { .. }) => self.damaged = true,
            Err(error) => return Err(error),
        }
        Ok(!self.damaged)
    }

    fn take(&mut self, stored: &Record) {
        let kind = Kind::from_code(stored.header.kind);
        fold(&mut self.outline, kind, stored);
        if !self.with_turns || !kind.is_turn() {
            return;
        }
        let Some(turn) = stored.header.turn.and_then(|turn| usize::try_from(turn).ok()) else { return };
        let len = self.turns.len();
        match self.turns.get_mut(turn) {
            Some(at) => *at = stored.seq,
            None if kind == Kind::TurnFinal && turn == len => self.turns.push(stored.seq),
            None => {}
        }
    }

    /// The records of the turns from `from` to `to` inclusive, at most `limit`, and whether more would follow.
    pub(super) fn places(&self, (from, to): (TurnNo, TurnNo), limit: usize) -> (Vec<Seq>, bool) {
        let len = self.turns.len() as u64;
        let end = len.min(to.saturating_add(1));
        if from >= end {
            return (Vec::new(), false);
        }
        let start = usize::try_from(from).unwrap_or(usize::MAX);
        let wanted = &self.turns[start..usize::try_from(end).unwrap_or(usize::MAX).min(start.saturating_add(limit))];
        (wanted.to_vec(), (wanted.len() as u64) < end - from)
    }

    /// Approximate size in memory, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.outline.bytes() + self.turns.capacity() * size_of::<Seq>()
    }
}

/// Adds the next record; for most of them, only the header is used.
fn fold(outline: &mut Outline, kind: Kind, stored: &Record) {
    outline.seq = stored.seq;
    match kind {
        Kind::TurnFinal => outline.turns += 1,
        Kind::TurnRevised | Kind::InsightFailed | Kind::Gap | Kind::Other => {}
        Kind::InsightUpdated => {
            if let Some(analysis) = &stored.header.analysis {
                let newest = match outline.insights.get_mut(&**analysis) {
                    Some(newest) => newest,
                    None => outline.insights.entry(analysis.to_string()).or_default(),
                };
                newest.note(stored.header.turn, stored.seq);
            }
        }
        Kind::CallCompleted => outline.ended = Some(State::Completed),
        Kind::CallFailed => outline.ended = Some(State::Failed),
        Kind::CallStarted
        | Kind::CallUpdated
        | Kind::StreamStarted
        | Kind::StreamEnded
        | Kind::AlertRaised
        | Kind::AlertCleared => {
            if let Ok(decoded) = read(stored) {
                outline.call_event(decoded.event, &decoded.at);
            }
        }
    }
}

fn read(stored: &Record) -> Result<Decoded, String> {
    record::decode(stored.seq, &stored.frame, &stored.private)
}

/// The turns in the records `places`, in order: about `max_bytes` of them, at least one if there is one. Also returns
/// whether any were left out.
///
/// # Errors
/// The log cannot be read now.
pub(super) async fn turns_at(
    store: &dyn Store,
    call: &CallId,
    places: &[Seq],
    max_bytes: usize,
) -> Result<(Vec<Arc<Turn>>, bool), JournalError> {
    let (mut turns, mut bytes) = (Vec::new(), 0);
    for part in places.chunks(PART) {
        let found = records_at(store, call, part.to_vec()).await?;
        let part = part.to_vec();
        let decoded = off_thread(move || {
            let turns = part.iter().filter_map(|seq| found.get(seq).and_then(|stored| turn_in(stored)));
            turns.map(Arc::new).collect::<Vec<_>>()
        });
        for turn in decoded.await? {
            let size = turn.text.len() + 256;
            if !turns.is_empty() && bytes + size > max_bytes {
                return Ok((turns, true));
            }
            bytes += size;
            turns.push(turn);
        }
    }
    Ok((turns, false))
}

/// The newest insights by analysis, as snapshots show them.
///
/// # Errors
/// The log cannot be read now.
pub(super) async fn insights_at(
    store: &dyn Store,
    call: &CallId,
    insights: BTreeMap<String, Newest>,
) -> Result<BTreeMap<String, Value>, JournalError> {
    if insights.is_empty() {
        return Ok(BTreeMap::new());
    }
    let seqs = insights.values().flat_map(|newest| newest.whole.iter().chain(newest.turns.values()));
    let found = records_at(store, call, seqs.copied().collect()).await?;
    off_thread(move || {
        let value = |seq: &Seq| found.get(seq).and_then(|stored| insight_in(stored));
        let mut shown = BTreeMap::new();
        for (name, newest) in insights {
            if let Some(value) = newest.whole.as_ref().and_then(value) {
                shown.insert(name, value);
            } else if !newest.turns.is_empty() {
                let turns = newest.turns.iter().filter_map(|(turn, seq)| Some((turn.to_string(), value(seq)?)));
                let turns: serde_json::Map<String, Value> = turns.collect();
                shown.insert(name, json!({ "turns": turns }));
            }
        }
        shown
    })
    .await
}

/// Runs `work` on a thread that serves no clients.
///
/// # Errors
/// `Unavailable`: the daemon is stopping.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JournalError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(JournalError::Unavailable("the daemon is stopping".to_owned())),
    }
}

/// The records at `seqs`; those that can no longer be read are left out.
async fn records_at(
    store: &dyn Store,
    call: &CallId,
    mut seqs: Vec<Seq>,
) -> Result<BTreeMap<Seq, Arc<Record>>, JournalError> {
    seqs.sort_unstable();
    seqs.dedup();
    let mut wanted: VecDeque<Seq> = seqs.into();
    let mut found = BTreeMap::new();
    while let Some(first) = wanted.pop_front() {
        let records = match store.read(call, first.saturating_sub(1), NEAR_BYTES).await {
            Ok(records) => records,
            Err(JournalError::Damaged { .. }) => break,
            Err(error) => return Err(error),
        };
        let last = records.last().map_or(first, |stored| stored.seq);
        let mut next = Some(first);
        for stored in records {
            while next.is_some_and(|seq| seq < stored.seq) {
                next = wanted.pop_front();
            }
            if next == Some(stored.seq) {
                found.insert(stored.seq, stored);
                next = wanted.pop_front();
            }
        }
        // The record that was looked up last is after what was read.
        if let Some(seq) = next.filter(|seq| *seq > last) {
            wanted.push_front(seq);
        }
        // Lets the other tasks of this thread run between many short reads.
        tokio::task::yield_now().await;
    }
    Ok(found)
}

fn turn_in(stored: &Record) -> Option<Turn> {
    let decoded = read(stored).ok()?;
    let (Event::TurnFinal { mut turn } | Event::TurnRevised { mut turn, .. }) = decoded.event else { return None };
    if turn.words.is_empty() {
        turn.words = decoded.private.turn.map(|known| known.words).unwrap_or_default();
    }
    Some(turn)
}

fn insight_in(stored: &Record) -> Option<Value> {
    #[derive(serde::Deserialize)]
    struct Updated {
        insight: Value,
    }
    serde_json::from_slice::<Updated>(&stored.frame).ok().map(|updated| updated.insight)
}
