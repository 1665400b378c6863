//! Which record of a call's log has which turn as it stands: with it, any page of turns is read from the log, and nothing
//! of the call is rebuilt. Made by one pass over the log, and carried on from where it was.
//!
//! Knows no session. What takes in or decodes many records is for threads that serve nobody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::call::outline::{Newest, Outline};
use crate::call::record::{self, Decoded};
use crate::journal::{CallState as State, JournalError, Record, Store};
use crate::protocol::Event;
use crate::protocol::event::Kind;
use crate::types::{CallId, Seq, Turn, TurnNo};

/// Bytes of a log read and taken in before others have their turn.
pub(super) const PIECE_BYTES: usize = 1024 * 1024;
/// Bytes read at once where single records are looked for: their neighbours are often wanted next.
const NEAR_BYTES: usize = 16 * 1024;
/// Turns that are looked for and decoded at once: a page that is full by its bytes reads little beyond.
const PART: usize = 64;

/// What the log of one call holds, up to one event.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// The rest of what is shown.
    pub(super) outline: Outline,
    /// The newest record of each turn; empty where only the outline is wanted.
    turns: Vec<Seq>,
    /// Whether turns are noted.
    with_turns: bool,
    /// The log cannot be read any further.
    pub(super) damaged: bool,
}

impl Index {
    /// One that has read nothing.
    pub(super) fn new() -> Self {
        Self { with_turns: true, ..Self::default() }
    }

    /// One that goes on from what the directory knows, without turns.
    pub(super) fn without_turns(outline: Outline) -> Self {
        Self { outline, ..Self::default() }
    }

    /// Takes the next piece, as it was read; whether there may be more.
    ///
    /// # Errors
    /// The log cannot be read now, or there is none.
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

    /// Where the turns from `from` up to and with `to` stand, at most `limit`, and whether more would follow.
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

    /// About what it takes in memory, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.outline.bytes() + self.turns.capacity() * size_of::<Seq>()
    }
}

/// Takes the next record: most of them by their header alone.
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

/// The turns at `places`, in order: of about `max_bytes`, at least one where there is one. And whether any were left out.
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

/// Does `work` on a thread that serves nobody.
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

/// The records at `seqs`; those that cannot be read any more are left out.
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
        // The one that was looked for last is behind what was read.
        if let Some(seq) = next.filter(|seq| *seq > last) {
            wanted.push_front(seq);
        }
        // Many short reads do not hold up the others of this thread.
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
