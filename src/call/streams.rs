//! When streams of a call begin, begin again behind one producer, and end.
//!
//! Knows no turn and no analysis.

use super::input::Gap;
use super::log::Stream;
use super::record::Private;
use super::{Call, bounds};
use crate::protocol::{ErrorCode, Event, GapCause};
use crate::types::id::MAX_ID_BYTES;
use crate::types::{EndScope, StreamId};

/// Reason of the end of a stream after which the vendor began a new session.
const RESTARTED: &str = "vendor_session_restarted";

impl Call {
    /// Begins the producer's stream, unless it has begun: its offset is derived once and kept.
    pub(super) fn begin_stream(&mut self, root: &StreamId, vendor_session: Option<&str>) {
        let Some(live) = self.producers.live.get(root) else { return };
        if self.log.stream(&live.current).is_none() {
            let current = live.current.clone();
            self.start_stream(root, current, vendor_session);
        }
    }

    /// Handles the beginning of a vendor's session. If its id is known, the producer has only sent it again.
    pub(super) fn vendor_begins(&mut self, root: &StreamId, session: Option<&str>) {
        let Some(live) = self.producers.live.get_mut(root) else { return };
        let begun = std::mem::replace(&mut live.begun, true);
        let Some(stream) = self.log.stream(&live.current) else { return self.begin_stream(root, session) };
        let known = live.session.as_deref().or(stream.vendor_session.as_deref());
        let another = match session {
            None => begun,
            Some(session) if known == Some(session) => false,
            Some(session) => {
                let of_root = |stream: &&Stream| stream.root == *root;
                let named = |stream: &&Stream| stream.vendor_session.as_deref() == Some(session);
                if let Some(earlier) = self.log.streams.iter().filter(of_root).find(named) {
                    live.current = earlier.id.clone();
                    return;
                }
                if known.is_none() && !begun {
                    live.session = Some(session.to_owned());
                    return;
                }
                true
            }
        };
        if another {
            self.restart(root, session);
        }
    }

    /// Handles a new session of the vendor behind the same producer: it is a new stream of the call.
    pub(super) fn restart(&mut self, root: &StreamId, session: Option<&str>) {
        let Some(current) = self.producers.live.get(root).map(|live| live.current.clone()) else { return };
        let Some(stream) = self.log.stream(&current) else { return self.begin_stream(root, session) };
        let cut_off = !stream.ended;
        if !self.has_stream_room() {
            return self.refuse_stream(root);
        }
        let next = self.successor(root);
        if cut_off {
            let event = Event::StreamEnded { stream_id: current, reason: Some(RESTARTED.to_owned()) };
            self.emit(&event, &Private { mark: self.producers.mark(root), ..Private::default() });
        }
        if let Some(live) = self.producers.live.get_mut(root) {
            live.current = next.clone();
            live.session = None;
            live.begun = true;
        }
        self.start_stream_after(root, next, session, cut_off);
    }

    /// `ROOT~2`, `ROOT~3`, …
    fn successor(&self, root: &StreamId) -> StreamId {
        let mut number = 2_u64;
        loop {
            let suffix = format!("~{number}");
            let stem: String = root.as_str().chars().take(MAX_ID_BYTES - suffix.len()).collect();
            match StreamId::parse(&format!("{stem}{suffix}")) {
                Ok(id) if self.log.stream(&id).is_none() && !self.producers.live.contains_key(&id) => return id,
                Ok(_) => number += 1,
                // An id with a suffix is a valid id, so this is never reached.
                Err(_) => return root.clone(),
            }
        }
    }

    fn start_stream(&mut self, root: &StreamId, id: StreamId, vendor_session: Option<&str>) {
        // The newest stream never ended, and no producer of another stream is connected: speech was lost before this
        // stream.
        let cut_off = self.log.streams.last().is_some_and(|last| !last.ended);
        self.start_stream_after(root, id, vendor_session, cut_off);
    }

    /// Begins the stream `id`. `cut_off`: the stream before it did not end by itself.
    fn start_stream_after(&mut self, root: &StreamId, id: StreamId, vendor_session: Option<&str>, cut_off: bool) {
        let Some(live) = self.producers.live.get(root) else { return };
        let alone =
            !self.producers.live.iter().any(|(other, live)| {
                other != root && self.log.stream(&live.current).is_none_or(|stream| !stream.ended)
            });
        let now = self.call_ms();
        let first = self.log.streams.is_empty();
        let heard_ms = if alone { self.log.heard_ms() } else { None };
        // The producer's own offset belongs to the session with which it began.
        let offset_ms = live.offset_ms.filter(|_| id == *root).unwrap_or(match heard_ms {
            _ if first => 0,
            Some(heard_ms) => now.max(heard_ms),
            None => now,
        });
        let hole = (cut_off && alone)
            .then(|| heard_ms.or_else(|| self.log.streams.last().map(|last| last.offset_ms)).unwrap_or_default());
        let started = Event::StreamStarted {
            stream_id: id.clone(),
            dialect: live.dialect.name().to_owned(),
            vendor_session: vendor_session.map(str::to_owned),
            offset_ms,
        };
        self.emit(&started, &Private { mark: self.producers.mark(root), ..Private::default() });
        if let Some(from_ms) = hole {
            let to_ms = offset_ms.max(from_ms);
            let gap = Event::Gap { stream_id: id, cause: GapCause::SttDisconnect, from_ms, to_ms };
            self.emit(&gap, &Private::default());
        }
        self.directory.changed = true;
        self.note_ends();
    }

    pub(super) fn end_stream(&mut self, root: &StreamId, reason: Option<String>, scope: EndScope) {
        let Some(stream) = self.producers.live.get(root).map(|live| live.current.clone()) else { return };
        let ended = self.log.stream(&stream).is_some_and(|stream| stream.ended);
        let ending = scope == EndScope::Call;
        if ended && !ending {
            return;
        }
        if ending {
            // The decoders of other streams do not notice this end.
            self.let_all_out();
        }
        // A reason over the limit must not keep the stream open.
        let reason = match bounds::label("end.reason", reason.as_deref(), &self.settings.limits) {
            Ok(()) => reason,
            Err(message) => {
                self.report_error(
                    root,
                    ErrorCode::BadField,
                    format!("{message}; the stream has ended, but its reason is ignored"),
                );
                None
            }
        };
        let event = Event::StreamEnded { stream_id: stream, reason };
        self.emit(&event, &Private { mark: self.producers.mark(root), ending, ..Private::default() });
        self.directory.changed = true;
        self.note_ends();
    }

    pub(super) fn gap(&mut self, gap: Gap) {
        let Gap { stream, cause, from_ms, to_ms } = gap;
        if !self.is_open() || self.log.head == 0 {
            return;
        }
        let stream_id = self.producers.live.get(&stream).map_or(stream, |live| live.current.clone());
        let offset_ms = self.log.stream(&stream_id).map_or(0, |stream| stream.offset_ms);
        let (from_ms, to_ms) = (from_ms.saturating_add(offset_ms), to_ms.saturating_add(offset_ms));
        self.emit(&Event::Gap { stream_id, cause, from_ms, to_ms }, &Private::default());
    }

    /// The connected producers whose stream has not ended, by the stream that they named.
    pub(super) fn connected_streams(&self) -> impl Iterator<Item = &StreamId> {
        let live = self.producers.live.iter();
        let live = live.filter(|(_, live)| self.log.stream(&live.current).is_none_or(|stream| !stream.ended));
        live.map(|(root, _)| root)
    }

    /// Returns true if a producer is connected whose stream has not ended.
    pub(super) fn has_connected_producer(&self) -> bool {
        self.connected_streams().next().is_some()
    }

    /// Starts or stops the linger timer.
    pub(super) fn note_ends(&mut self) {
        let leg_live = self.has_connected_producer();
        let all_ended =
            !self.log.streams.is_empty() && self.log.streams.iter().all(|stream| stream.ended || stream.replaced);
        let since = self.life.ended_since.unwrap_or(self.now.ms);
        self.life.ended_since = (all_ended && !leg_live).then_some(since);
    }
}
