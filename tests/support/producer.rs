//! A producer that follows the contract: it sends with a window, handles acks, reconnects when the connection drops,
//! and resends from the greater of `welcome.frames` and the last `ack.frames`, until the call is completed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::ws::{Client, Options, encode};
use super::{Json, json};

/// State that all producers of a test share, and that the test reads while they run.
#[derive(Debug, Default)]
pub struct Fleet {
    /// Number of producers that got their `welcome` and are still connected.
    pub connected: AtomicUsize,
    /// Number of connections that dropped while a frame was unacknowledged.
    pub dropped_unacked: AtomicU64,
    /// Number of connections that dropped.
    pub dropped: AtomicU64,
    /// Frames sent and not acknowledged, over all open connections.
    pub unacked: AtomicI64,
    /// Frames sent.
    pub sent: AtomicU64,
    /// Frames sent again after a drop.
    pub resent: AtomicU64,
    /// Time between frames in microseconds.
    pub pace_us: AtomicU64,
    /// Set to stop all producers.
    pub stop: AtomicBool,
}

/// A call to be fed.
pub struct Producer {
    /// The daemon's port.
    pub port: u16,
    /// The call.
    pub call: String,
    /// The stream.
    pub stream: String,
    /// The dialect.
    pub dialect: String,
    /// More of the query, such as `&analyses=summary`.
    pub query: String,
    /// The frames to send.
    pub frames: Vec<String>,
    /// Maximum number of frames in flight.
    pub window: usize,
    /// The shared state.
    pub fleet: Arc<Fleet>,
}

/// The result of a producer.
#[derive(Debug, Default)]
pub struct Outcome {
    /// `call.completed`, as it came.
    pub completed: Option<Json>,
    /// Number of connections that were needed.
    pub connections: u64,
    /// Highest `turn_order` that was acknowledged.
    pub acked: Option<u64>,
    /// Errors, as received.
    pub errors: Vec<Json>,
    /// Times from sending a frame to its ack.
    pub ack_times: Vec<Duration>,
}

impl Producer {
    /// A producer of AssemblyAI frames.
    pub fn assemblyai(port: u16, call: &str, frames: Vec<String>, fleet: &Arc<Fleet>) -> Self {
        Self {
            port,
            call: call.to_owned(),
            stream: "s_1".to_owned(),
            dialect: "assemblyai".to_owned(),
            query: String::new(),
            frames,
            window: 8,
            fleet: Arc::clone(fleet),
        }
    }

    /// Feeds the call to its end; gives up after `within`.
    pub async fn run(self, within: Duration) -> Outcome {
        let deadline = Instant::now() + within;
        let mut outcome = Outcome::default();
        // Index of the first frame of the newest connection, and the number of that connection's frames that were
        // acknowledged.
        let (mut base, mut acked) = (0, 0);
        while Instant::now() < deadline && !self.fleet.stop.load(Ordering::Relaxed) {
            let url = format!(
                "ws://127.0.0.1:{}/v1/ingest?call_id={}&stream_id={}&dialect={}{}",
                self.port,
                encode(&self.call),
                encode(&self.stream),
                self.dialect,
                self.query
            );
            let options = Options::default();
            let connecting = Client::try_connect(&url, &options);
            let Ok(Ok(mut client)) = tokio::time::timeout(Duration::from_secs(5), connecting).await else {
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            };
            outcome.connections += 1;
            let Some(welcome) = client.recv_within(Duration::from_secs(5)).await else { continue };
            if welcome["type"] != "welcome" {
                outcome.errors.push(welcome);
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            let durable = welcome["acked"].as_u64();
            assert!(durable >= outcome.acked, "{}: acked {:?}, now only {durable:?}", self.call, outcome.acked);
            // A completed call repeats its count each time that the producer reconnects. A count that is too high for
            // any other reason makes this test fail, because some frames are then not sent and the call does not
            // complete.
            let covered = welcome["frames"].as_u64().unwrap_or(0) as usize;
            base = (base + covered.max(acked)).min(self.frames.len());
            acked = self.feed(&mut client, base, &mut outcome, deadline).await;
            if outcome.completed.is_some() {
                break;
            }
        }
        outcome
    }

    /// Feeds one connection until it ends, and returns the highest `ack.frames`.
    async fn feed(&self, client: &mut Client, base: usize, outcome: &mut Outcome, deadline: Instant) -> usize {
        let fleet = &*self.fleet;
        fleet.connected.fetch_add(1, Ordering::SeqCst);
        // Only frames that change something are acknowledged: if no ack comes, the window begins again at `mark`.
        let (mut sent, mut acked, mut mark) = (0, 0, 0);
        let mut times: Vec<Instant> = Vec::new();
        let mut completed = false;
        loop {
            let more = base + sent < self.frames.len();
            let pace = Duration::from_micros(fleet.pace_us.load(Ordering::Relaxed));
            let may_send = more && sent - mark < self.window;
            let received = if may_send {
                if pace.is_zero() { client.recv_within(Duration::ZERO).await } else { client.recv_within(pace).await }
            } else if more {
                client.recv_within(Duration::from_millis(60)).await
            } else {
                client.recv_within(Duration::from_secs(1)).await
            };
            match received {
                Some(frame) if frame["type"] == "ack" => {
                    let now = frame["frames"].as_u64().unwrap_or(0) as usize;
                    assert!(now >= acked && now <= sent, "{}: ack of {now} after {acked}, sent {sent}", self.call);
                    outcome.ack_times.extend(times[acked..now].iter().map(Instant::elapsed));
                    fleet.unacked.fetch_sub((now - acked) as i64, Ordering::SeqCst);
                    acked = now;
                    mark = mark.max(now);
                    outcome.acked = outcome.acked.max(frame["turn_order"].as_u64());
                    continue;
                }
                Some(frame) if frame["type"] == "call.completed" => {
                    completed = true;
                    outcome.completed = Some(frame);
                    continue;
                }
                Some(frame) if frame["type"] == "error" => {
                    outcome.errors.push(frame);
                    continue;
                }
                Some(_) => continue,
                None if client.closed.is_some() => break,
                None => {}
            }
            if may_send {
                times.push(Instant::now());
                if !client.send_text(&self.frames[base + sent]).await {
                    times.pop();
                    break;
                }
                sent += 1;
                fleet.sent.fetch_add(1, Ordering::Relaxed);
                fleet.unacked.fetch_add(1, Ordering::SeqCst);
            } else if fleet.stop.load(Ordering::Relaxed) || Instant::now() > deadline {
                break;
            } else {
                mark = sent;
            }
        }
        let unacked = sent - acked;
        fleet.unacked.fetch_sub(unacked as i64, Ordering::SeqCst);
        if !completed {
            fleet.dropped.fetch_add(1, Ordering::SeqCst);
            if unacked > 0 {
                fleet.dropped_unacked.fetch_add(1, Ordering::SeqCst);
                fleet.resent.fetch_add(unacked as u64, Ordering::Relaxed);
            }
        }
        fleet.connected.fetch_sub(1, Ordering::SeqCst);
        acked
    }
}

/// `sidetone` frames of a made-up call: `turns` turns and the end of the call.
pub fn sidetone_frames(turns: u64, end: bool) -> Vec<String> {
    let mut frames: Vec<String> = (0..turns)
        .map(|order| {
            let speaker = if order.is_multiple_of(2) { "agent" } else { "customer" };
            super::ws::turn(order, speaker, &format!("Sentence number {order} of this call.")).to_string()
        })
        .collect();
    if end {
        frames.push(json!({"type":"end","reason":"hangup","scope":"call"}).to_string());
    }
    frames
}
