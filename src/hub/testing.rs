//! A hub over a store in memory, and events for it, for tests of everything that reads new events.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prometheus_client::registry::Registry;

use super::{Config, Hub, Metrics};
pub(crate) use crate::journal::memory::{Faults, Memory};
use crate::journal::{CallState, Entry, NewRecord, Store as _};
use crate::protocol::event::encode;
use crate::protocol::{Event, Stamp};
use crate::types::{
    CallId, Coverage, Insight, JsonMap, LatencyMs, Provenance, Seq, Status, StreamId, TokenUsage, Trigger, Turn, TurnNo,
};

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
            covers: Coverage {
                from: Some(0),
                to: Some(rev),
                turns: rev + 1,
                digest_to: None,
                verbatim_from: Some(0),
                revision: rev,
            },
            behind_turns: 0,
            trigger: Trigger::Turns,
            value: serde_json::json!({"text": "fine"}),
            changes: None,
            dropped_operations: 0,
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

/// A hub over a fresh store that answers at once.
pub(crate) fn hub(config: Config) -> (Hub, Arc<Memory>) {
    hub_over(config, Memory::default())
}

/// A hub over a store that answers late, from a seed.
pub(crate) fn late_hub(config: Config, seed: u64) -> (Hub, Arc<Memory>) {
    hub_over(config, Memory::with(Faults { seed, delay: 5, fenced: 0 }))
}

fn hub_over(config: Config, store: Memory) -> (Hub, Arc<Memory>) {
    let store = Arc::new(store);
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
            due_at_ms: None,
        });
        match event {
            Event::CallStarted { meta, .. } | Event::CallUpdated { meta } => entry.meta = meta.clone(),
            Event::CallCompleted { .. } => entry.state = CallState::Completed,
            _ => {}
        }
        let frame = encode(&stamp, event).into();
        let record = NewRecord { header: event.header(), frame, private: Bytes::from(private.to_owned()) };
        self.append_now(call, head, vec![record], Some(entry)).expect("append").head
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
}
