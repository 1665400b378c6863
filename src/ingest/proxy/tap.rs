//! The tap: a queue of copies of the vendor's frames for the pipeline. Adding a frame never waits.
//!
//! When the pipeline is behind, partials are dropped first. Finals wait, up to a limit in bytes; the time of dropped
//! finals is recorded as a hole.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::frames;
use crate::analysis::Spoken;
use crate::base::queue::QueueGauges;
use crate::base::sync::lock;
use crate::base::ws::Utf8Bytes;
use crate::types::SttEvent;

/// Partials are dropped while the queue is larger than this, bytes.
const PARTIALS_BYTES: usize = 256 << 10;
/// Finals are dropped while the queue is larger than this, bytes.
const FINALS_BYTES: usize = 8 << 20;

/// A stretch of speech that was dropped, in stream time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
}

/// What the queue yields.
#[derive(Debug)]
pub(super) enum Tapped {
    /// A frame, with its turns that are to be answered.
    Frame(Utf8Bytes, Vec<Spoken>),
    Hole(Hole),
    /// The queue has ended.
    Over,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<(Utf8Bytes, Vec<Spoken>)>,
    bytes: usize,
    hole: Option<Hole>,
    over: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: Notify,
    gauges: Arc<QueueGauges>,
}

/// The relay's end of the queue. Dropping it ends the queue.
#[derive(Debug)]
pub(super) struct Tap(Arc<Shared>);

/// The pipeline's end of the queue.
#[derive(Debug)]
pub(super) struct Drawn(Arc<Shared>);

fn is_partial(events: &[SttEvent]) -> bool {
    events.iter().any(|event| matches!(event, SttEvent::Partial { .. }))
}

/// Makes a tap whose queue is counted in `gauges`.
pub(super) fn tap(gauges: &Arc<QueueGauges>) -> (Tap, Drawn) {
    let shared = Arc::new(Shared { state: Mutex::default(), wake: Notify::new(), gauges: Arc::clone(gauges) });
    (Tap(Arc::clone(&shared)), Drawn(shared))
}

impl Tap {
    /// Adds a copy of a frame, with its turns that are to be answered. If the frame is dropped, returns these turns.
    /// The text is shared, not copied.
    pub(super) fn offer(&self, text: &Utf8Bytes, asks: Vec<Spoken>) -> Vec<Spoken> {
        let mut state = lock(&self.0.state);
        if state.bytes + text.len() > PARTIALS_BYTES && !self.make_room(&mut state, text) {
            return asks;
        }
        state.bytes += text.len();
        state.frames.push_back((text.clone(), asks));
        drop(state);
        self.0.gauges.depth.inc();
        self.0.wake.notify_one();
        Vec::new()
    }

    /// Makes room when the pipeline is behind; returns false if this frame must be dropped.
    fn make_room(&self, state: &mut State, text: &Utf8Bytes) -> bool {
        let events = frames::events(text);
        if is_partial(&events) {
            self.0.gauges.dropped.inc();
            return false;
        }
        if state.bytes + text.len() <= FINALS_BYTES {
            return true;
        }
        self.drop_partials(state);
        if state.bytes + text.len() <= FINALS_BYTES {
            return true;
        }
        self.0.gauges.dropped.inc();
        let (first, last) = events
            .iter()
            .find_map(|event| match event {
                SttEvent::Final(turn) => Some((turn.start_ms, turn.end_ms)),
                _ => None,
            })
            .unwrap_or_default();
        let lost = Hole { from_ms: first.unwrap_or(0), to_ms: last.unwrap_or(0) };
        state.hole = Some(match state.hole {
            None => lost,
            Some(hole) => Hole { from_ms: hole.from_ms.min(lost.from_ms), to_ms: hole.to_ms.max(lost.to_ms) },
        });
        false
    }

    fn drop_partials(&self, state: &mut State) {
        let before = state.frames.len();
        // Partials carry no turns that are to be answered.
        state.frames.retain(|(frame, _)| !is_partial(&frames::events(frame)));
        let dropped = before - state.frames.len();
        state.bytes = state.frames.iter().map(|(frame, _)| frame.len()).sum();
        self.0.gauges.dropped.inc_by(dropped as u64);
        self.0.gauges.depth.dec_by(i64::try_from(dropped).unwrap_or(0));
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        lock(&self.0.state).over = true;
        self.0.wake.notify_one();
    }
}

impl Drawn {
    /// The next frame; a hole comes before the frame that followed it.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn next(&mut self) -> Tapped {
        loop {
            {
                let mut state = lock(&self.0.state);
                if let Some((frame, asks)) = state.frames.pop_front() {
                    state.bytes -= frame.len();
                    self.0.gauges.depth.dec();
                    return Tapped::Frame(frame, asks);
                }
                // The dropped speech came after all frames that waited.
                if let Some(hole) = state.hole.take() {
                    return Tapped::Hole(hole);
                }
                if state.over {
                    return Tapped::Over;
                }
            }
            self.0.wake.notified().await;
        }
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        let left = lock(&self.0.state).frames.len();
        self.0.gauges.depth.dec_by(i64::try_from(left).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::base::queue::QueueMetrics;

    fn turn(order: usize, last: bool, bytes: usize) -> Utf8Bytes {
        let text = "x".repeat(bytes);
        Utf8Bytes::from(format!(
            r#"{{"type":"Turn","turn_order":{order},"end_of_turn":{last},"transcript":"{text}","words":[{{"text":"x","start":"{order}00","end":{order}50.0}}]}}"#
        ))
    }

    #[tokio::test]
    async fn full_buffer_drops_partials_first_then_finals_with_a_gap() {
        let gauges = Arc::new(QueueMetrics::register(&mut Registry::default()).queue("tap"));
        let (tap, mut drawn) = tap(&gauges);
        tap.offer(&turn(1, false, 1000), Vec::new());
        for order in 1..100 {
            tap.offer(&turn(order, false, 10_000), Vec::new());
            tap.offer(&turn(order, true, 100_000), Vec::new());
        }
        let dropped = gauges.dropped.get();
        drop(tap);
        let (mut finals, mut partials, mut hole) = (0, 0, None);
        loop {
            match drawn.next().await {
                Tapped::Frame(frame, _) if frame.contains(r#""end_of_turn":true"#) => finals += 1,
                Tapped::Frame(..) => partials += 1,
                Tapped::Hole(found) => hole = Some(found),
                Tapped::Over => break,
            }
        }
        assert_eq!(partials, 0, "those that waited made room");
        assert!((80..=84).contains(&finals), "8 MiB of 100 kB each: {finals}");
        assert_eq!(hole, Some(Hole { from_ms: (finals as u64 + 1) * 100, to_ms: 9950 }));
        assert_eq!(dropped, 100 + 99 - finals as u64);
        assert_eq!(gauges.depth.get(), 0);
    }
}
