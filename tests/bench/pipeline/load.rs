//! The open-loop generator: a thread that writes each turn when it is due, and tasks that record when its answer came.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde_json::Value as Json;

use super::common::wire::{self, Reader, Writer};

/// What an incoming frame says about the turns sent.
pub enum Heard {
    /// All turns up to this one have an insight.
    Insight(u64),
    /// This many frames are durable.
    Acked(u64),
    /// Nothing of interest.
    Other,
}

/// Reads a frame of the daemon or of the floor.
pub fn hear(text: &[u8]) -> Heard {
    // The type comes first, so most frames need no parser.
    if text.starts_with(b"{\"type\":\"ack\"") {
        let frame: Json = serde_json::from_slice(text).expect("JSON");
        return Heard::Acked(frame["frames"].as_u64().unwrap_or(0));
    }
    if text.starts_with(b"{\"type\":\"insight.updated\"") {
        let frame: Json = serde_json::from_slice(text).expect("JSON");
        return frame["insight"]["covers"]["to"].as_u64().map_or(Heard::Other, Heard::Insight);
    }
    if text.starts_with(b"{\"type\":\"insight\"") {
        let frame: Json = serde_json::from_slice(text).expect("JSON");
        return frame["to"].as_u64().map_or(Heard::Other, Heard::Insight);
    }
    assert!(!text.starts_with(b"{\"type\":\"error\""), "{}", String::from_utf8_lossy(text));
    Heard::Other
}

/// Samples of one run.
#[derive(Default)]
pub struct Samples {
    pub insight: Vec<Duration>,
    pub ack: Vec<Duration>,
    pub insights: u64,
}

/// One call's connection.
pub struct Call {
    writer: Writer,
    shared: Arc<Shared>,
}

struct Shared {
    /// When each turn was due, in ns of the run's clock; 0 = not sent.
    due: Vec<AtomicU64>,
    heard: AtomicU64,
    acked: AtomicU64,
    samples: Arc<Mutex<Samples>>,
    /// Turns below this are warm-up.
    from: AtomicU64,
}

/// The calls of one run.
pub struct Load {
    clock: Instant,
    pub calls: Vec<Call>,
    pub samples: Arc<Mutex<Samples>>,
    next_turn: Vec<u64>,
}

/// A turn's text: about twelve words.
fn turn_text(call: usize, order: u64) -> String {
    format!("Well, I called about order {order} again, the one from customer {call}, and nobody answered me.")
}

fn turn_frame(call: usize, order: u64) -> Vec<u8> {
    let speaker = if order.is_multiple_of(2) { "customer" } else { "agent" };
    let (start, end) = (order * 4000, order * 4000 + 3500);
    wire::frame(&format!(
        "{{\"type\":\"turn\",\"turn_order\":{order},\"speaker\":\"{speaker}\",\"text\":\"{}\",\"start_ms\":{start},\"end_ms\":{end}}}",
        turn_text(call, order)
    ))
}

impl Load {
    /// Opens `calls` connections, each for up to `turns` turns.
    pub async fn open(port: u16, path: impl Fn(usize) -> String, calls: usize, turns: u64) -> Self {
        let clock = Instant::now();
        let samples = Arc::new(Mutex::new(Samples::default()));
        let mut opened = Vec::with_capacity(calls);
        for call in 0..calls {
            let (writer, reader) = wire::connect(port, &path(call)).await;
            let shared = Arc::new(Shared {
                due: (0..turns).map(|_| AtomicU64::new(0)).collect(),
                heard: AtomicU64::new(0),
                acked: AtomicU64::new(0),
                samples: Arc::clone(&samples),
                from: AtomicU64::new(0),
            });
            tokio::spawn(read(reader, Arc::clone(&shared), clock));
            opened.push(Call { writer, shared });
        }
        Self { clock, calls: opened, samples, next_turn: vec![0; calls] }
    }

    /// Sends `turns` turns to each call, and waits for answers only now and then: this is history, which is not
    /// measured.
    pub async fn preload(&mut self, turns: u64, needs_insight: bool) {
        for order in 0..turns {
            for call in 0..self.calls.len() {
                self.send(call, self.clock.elapsed());
            }
            if order % 8 == 7 || order + 1 == turns {
                self.settle(needs_insight, Duration::from_secs(60)).await;
            }
        }
        for call in &self.calls {
            call.shared.from.store(turns, Ordering::Relaxed);
        }
        *self.samples.lock().expect("lock") = Samples::default();
    }

    fn send(&mut self, call: usize, due: Duration) {
        let order = self.next_turn[call];
        self.next_turn[call] += 1;
        let target = &mut self.calls[call];
        target.shared.due[order as usize].store(due.as_nanos().max(1) as u64, Ordering::Relaxed);
        target.writer.send(&turn_frame(call, order));
    }

    /// Waits until everything that was sent is answered.
    pub async fn settle(&self, needs_insight: bool, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            let done = self.calls.iter().zip(&self.next_turn).all(|(call, sent)| {
                let counter = if needs_insight { &call.shared.heard } else { &call.shared.acked };
                counter.load(Ordering::Relaxed) >= *sent
            });
            if done || Instant::now() > deadline {
                return done;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Sends `total` turns at `rate` per second, round robin over the calls, each at its due time.
    pub async fn open_loop(mut self, total: u64, rate: f64, needs_insight: bool) -> (Self, Duration) {
        let begun = Instant::now();
        let sender = std::thread::spawn(move || {
            let start = self.clock.elapsed() + Duration::from_millis(5);
            for number in 0..total {
                let due = start + Duration::from_secs_f64(number as f64 / rate);
                if let Some(wait) = due.checked_sub(self.clock.elapsed()) {
                    std::thread::sleep(wait);
                }
                let call = (number % self.calls.len() as u64) as usize;
                self.send(call, due);
            }
            self
        });
        let load = tokio::task::spawn_blocking(move || sender.join().expect("the sender")).await.expect("join");
        load.settle(needs_insight, Duration::from_secs(10)).await;
        (load, begun.elapsed())
    }

    /// Sends turns as fast as the target answers: each call has one turn in flight. Returns turns per second and the
    /// number of turns.
    pub async fn closed_loop(mut self, time: Duration) -> (Self, u64, Duration) {
        let begun = Instant::now();
        let mut sent = 0;
        while begun.elapsed() < time {
            let mut idle = true;
            for call in 0..self.calls.len() {
                let next = self.next_turn[call];
                let room = (next as usize) < self.calls[call].shared.due.len();
                if room && self.calls[call].shared.heard.load(Ordering::Relaxed) >= next {
                    self.send(call, self.clock.elapsed());
                    sent += 1;
                    idle = false;
                }
            }
            if idle {
                tokio::time::sleep(Duration::from_micros(100)).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
        let took = begun.elapsed();
        self.settle(true, Duration::from_secs(10)).await;
        (self, sent, took)
    }

    /// Number of turns sent so far.
    pub fn sent(&self) -> u64 {
        self.next_turn.iter().sum::<u64>()
    }
}

async fn read(mut reader: Reader, shared: Arc<Shared>, clock: Instant) {
    while let Some(text) = reader.text().await {
        note(&text, &shared, clock);
    }
}

fn note(text: &BytesMut, shared: &Shared, clock: Instant) {
    let now = clock.elapsed();
    let since = |order: u64| {
        let due = shared.due.get(order as usize)?.load(Ordering::Relaxed);
        (due > 0 && order >= shared.from.load(Ordering::Relaxed)).then(|| now.saturating_sub(Duration::from_nanos(due)))
    };
    match hear(text) {
        Heard::Insight(to) => {
            let before = shared.heard.fetch_max(to + 1, Ordering::Relaxed);
            let mut samples = shared.samples.lock().expect("lock");
            samples.insights += u64::from(to >= shared.from.load(Ordering::Relaxed));
            samples.insight.extend((before..=to).filter_map(since));
        }
        Heard::Acked(frames) => {
            let before = shared.acked.fetch_max(frames, Ordering::Relaxed);
            let mut samples = shared.samples.lock().expect("lock");
            samples.ack.extend((before..frames).filter_map(since));
        }
        Heard::Other => {}
    }
}
