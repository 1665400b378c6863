//! A small store in memory, for tests of everything that reads the tail.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use prometheus_client::registry::Registry;

use super::{Config, Hub, Metrics};
use crate::journal::{
    CallState, Commit, CommitFuture, Directory, Entry, Journal, JournalError, NewRecord, Record, Tail,
};
use crate::types::event::encode;
use crate::types::{
    CallId, Coverage, Event, Insight, JsonMap, LatencyMs, Provenance, Seq, Stamp, Status, StreamId, TokenUsage, Turn,
    TurnNo,
};

#[derive(Default)]
struct State {
    calls: BTreeMap<CallId, (Entry, Vec<Arc<Record>>)>,
    /// Events up to this one have left retention, by call.
    oldest: BTreeMap<CallId, Seq>,
    order: u64,
    unreadable: bool,
    damaged: HashSet<CallId>,
}

/// A store in memory. Every append is durable at once.
#[derive(Default)]
pub(crate) struct Memory {
    state: Mutex<State>,
    tail: OnceLock<Arc<dyn Tail>>,
}

pub(crate) fn call(name: &str) -> CallId {
    CallId::parse(name).expect("id")
}

pub(crate) fn object(text: &str) -> JsonMap {
    serde_json::from_str(text).expect("json object")
}

pub(crate) fn turn(number: TurnNo, text: &str) -> Turn {
    Turn {
        turn: number,
        stream_id: StreamId::parse("s_1").expect("id"),
        turn_order: number,
        vendor_turn: None,
        rev: 0,
        speaker: Some("A".into()),
        text: text.into(),
        start_ms: number * 1000,
        end_ms: number * 1000 + 900,
        language: None,
        confidence: None,
        words: Vec::new(),
    }
}

pub(crate) fn insight(analysis: &str, rev: u64, turn: Option<TurnNo>) -> Event {
    Event::InsightUpdated {
        insight: Arc::new(Insight {
            id: format!("i_{rev}"),
            analysis: analysis.into(),
            rev,
            status: Status::Provisional,
            degraded: false,
            turn,
            covers: Coverage { from: Some(0), to: Some(rev), turns: rev + 1, verbatim_from: Some(0), revision: rev },
            behind_turns: 0,
            trigger: "turns".into(),
            value: serde_json::json!({"text": "fine"}),
            evidence: Vec::new(),
            provenance: Provenance {
                route: analysis.into(),
                variant: "a".into(),
                model: "m".into(),
                endpoint: "local".into(),
                prompt: "p/v1@0".into(),
                attempts: 1,
                usage: TokenUsage::default(),
                cost_usd: None,
            },
            latency_ms: LatencyMs::default(),
        }),
    }
}

/// A hub over a fresh store.
pub(crate) fn hub(config: Config) -> (Hub, Arc<Memory>) {
    let store = Arc::new(Memory::default());
    let hub = Hub::new(store.clone(), config, Metrics::register(&mut Registry::default()));
    store.set_tail(Arc::new(hub.clone()));
    (hub, store)
}

impl Memory {
    /// Appends `event` as the next one of `call`; creates the call if it is new. Returns its `seq`.
    pub(crate) fn add(&self, call: &CallId, event: &Event) -> Seq {
        self.add_private(call, event, "")
    }

    /// [`Memory::add`] with private fields.
    pub(crate) fn add_private(&self, call: &CallId, event: &Event, private: &str) -> Seq {
        let head = self.head(call).unwrap_or(0);
        let stamp = Stamp { call_id: call.clone(), seq: head + 1, at: "2026-01-01T00:00:00.000Z".into() };
        let mut entry = self.entry(call).unwrap_or_else(|| Entry {
            call_id: call.clone(),
            epoch: "e1".into(),
            state: CallState::Open,
            meta: JsonMap::new(),
            started_at_ms: 0,
            ended_at_ms: None,
            open_streams: 0,
            turns: 0,
            connections: BTreeMap::new(),
            positions: BTreeMap::new(),
            outline: None,
        });
        match event {
            Event::CallStarted { meta, .. } | Event::CallUpdated { meta } => entry.meta = meta.clone(),
            Event::CallCompleted { .. } => entry.state = CallState::Completed,
            _ => {}
        }
        let record = NewRecord { frame: encode(&stamp, event).into(), private: Bytes::from(private.to_owned()) };
        futures::executor::block_on(self.append(call, head, vec![record], Some(entry))).expect("append").head
    }

    /// Adds a `call.started`.
    pub(crate) fn start(&self, call: &CallId, meta: &str) -> Seq {
        self.add(call, &Event::CallStarted { epoch: "e1".into(), meta: object(meta) })
    }

    /// Adds a `call.completed`.
    pub(crate) fn complete(&self, call: &CallId) -> Seq {
        let event = Event::CallCompleted { r#final: JsonMap::new(), missing: JsonMap::new(), cost_usd: Some(0.0) };
        self.add(call, &event)
    }

    /// All records of `call`, including those that have left retention.
    pub(crate) fn log(&self, call: &CallId) -> Vec<Arc<Record>> {
        self.state.lock().expect("lock").calls.get(call).map(|(_, log)| log.clone()).unwrap_or_default()
    }

    /// Makes the events of `call` up to `oldest` leave retention.
    pub(crate) fn forget(&self, call: &CallId, oldest: Seq) {
        self.state.lock().expect("lock").oldest.insert(call.clone(), oldest);
    }

    /// Makes reads fail from now on, or work again.
    pub(crate) fn set_unreadable(&self, unreadable: bool) {
        self.state.lock().expect("lock").unreadable = unreadable;
    }

    /// Makes reads of `call` find damage from now on.
    pub(crate) fn damage(&self, call: &CallId) {
        self.state.lock().expect("lock").damaged.insert(call.clone());
    }
}

impl Journal for Memory {
    fn append(&self, call: &CallId, after: Seq, batch: Vec<NewRecord>, entry: Option<Entry>) -> CommitFuture {
        let mut state = self.state.lock().expect("lock");
        let State { calls, order, .. } = &mut *state;
        let (known, log) =
            calls.entry(call.clone()).or_insert_with(|| (entry.clone().expect("a new call has an entry"), Vec::new()));
        assert_eq!(log.len() as u64, after, "fenced");
        if let Some(entry) = entry {
            *known = entry;
        }
        let mut records = Vec::new();
        for new in batch {
            *order += 1;
            let record = Record { seq: log.len() as u64 + 1, order: *order, frame: new.frame, private: new.private };
            log.push(Arc::new(record));
            records.push(Arc::clone(log.last().expect("pushed")));
        }
        let head = log.len() as u64;
        if let Some(tail) = self.tail.get() {
            tail.committed(call, &records);
        }
        Box::pin(async move { Ok(Commit { head, records }) })
    }

    fn read(&self, call: &CallId, after: Seq, max_bytes: usize) -> Result<Vec<Arc<Record>>, JournalError> {
        let state = self.state.lock().expect("lock");
        if state.unreadable {
            return Err(JournalError::Unavailable("unplugged".into()));
        }
        if state.damaged.contains(call) {
            return Err(JournalError::Damaged { after, message: "a bad checksum".into() });
        }
        let (_, log) = state.calls.get(call).ok_or(JournalError::UnknownCall)?;
        if let Some(&oldest) = state.oldest.get(call)
            && after < oldest
        {
            return Err(JournalError::Gone { oldest });
        }
        let mut bytes = 0;
        let from = usize::try_from(after).expect("small").min(log.len());
        let taken = log[from..].iter().take_while(|record| {
            let first = bytes == 0;
            bytes += record.frame.len();
            first || bytes <= max_bytes
        });
        Ok(taken.cloned().collect())
    }

    fn head(&self, call: &CallId) -> Result<Seq, JournalError> {
        let state = self.state.lock().expect("lock");
        state.calls.get(call).map(|(_, log)| log.len() as u64).ok_or(JournalError::UnknownCall)
    }

    fn since(&self, after: u64) -> Result<Vec<(CallId, Seq)>, JournalError> {
        let state = self.state.lock().expect("lock");
        if state.unreadable {
            return Err(JournalError::Unavailable("unplugged".into()));
        }
        let first = |log: &[Arc<Record>]| log.iter().find(|record| record.order > after).map(|record| record.seq);
        Ok(state.calls.iter().filter_map(|(call, (_, log))| Some((call.clone(), first(log)?))).collect())
    }

    fn order(&self) -> u64 {
        self.state.lock().expect("lock").order
    }

    fn generation(&self) -> u64 {
        7
    }

    fn set_tail(&self, tail: Arc<dyn Tail>) {
        assert!(self.tail.set(tail).is_ok(), "one tail");
    }

    fn health(&self) -> Result<(), JournalError> {
        Ok(())
    }

    fn close(&self) {}
}

impl Directory for Memory {
    fn entry(&self, call: &CallId) -> Option<Entry> {
        self.state.lock().expect("lock").calls.get(call).map(|(entry, _)| entry.clone())
    }

    fn page(&self, state: Option<CallState>, after: Option<&CallId>, limit: usize) -> Vec<Entry> {
        let held = self.state.lock().expect("lock");
        let entries = held.calls.values().map(|(entry, _)| entry);
        entries
            .filter(|entry| state.is_none_or(|state| entry.state == state))
            .filter(|entry| after.is_none_or(|after| entry.call_id > *after))
            .take(limit)
            .cloned()
            .collect()
    }

    fn open_calls(&self) -> Vec<Entry> {
        self.page(Some(CallState::Open), None, usize::MAX)
    }

    fn open_count(&self) -> usize {
        self.open_calls().len()
    }

    fn mark_failed(&self, call: &CallId) {
        if let Some((entry, _)) = self.state.lock().expect("lock").calls.get_mut(call) {
            entry.state = CallState::Failed;
        }
    }

    fn erase(&self, call: &CallId) -> Result<bool, JournalError> {
        let erased = self.state.lock().expect("lock").calls.remove(call).is_some();
        if let Some(tail) = self.tail.get() {
            tail.erased(call);
        }
        Ok(erased)
    }
}
