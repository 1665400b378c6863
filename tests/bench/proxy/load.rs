//! Real-time sessions: at both ends, a thread writes every message when it is due; tasks record when it arrived at the
//! other end.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use super::common::process::Process;
use super::common::wire;
use super::vendor::{Heard, Vendor};

/// Audio in one message.
const CHUNK: Duration = Duration::from_millis(50);
/// 50 ms of 16 kHz PCM16.
const CHUNK_BYTES: usize = 1600;
/// The vendor sends a message about the turn every this many chunks: about three times per second.
const CHUNKS_A_PARTIAL: u64 = 6;
/// The last of this many messages ends the turn: a turn takes about four seconds.
const PARTIALS_A_TURN: u64 = 13;
/// Where a turn's frame contains its due time: after `{"at":"`, 20 digits.
const STAMP: std::ops::Range<usize> = 7..27;

static CLOCK: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now() -> u64 {
    CLOCK.elapsed().as_nanos() as u64
}

/// Times from due to arrival.
#[derive(Default)]
pub struct Samples {
    pub audio: Vec<Duration>,
    pub turns: Vec<Duration>,
}

#[derive(Default)]
struct Shared {
    samples: Mutex<Samples>,
    heard: AtomicU64,
    sent: AtomicU64,
}

struct Session {
    client: wire::Writer,
    vendor: TcpStream,
}

/// Open sessions.
pub struct Run {
    sessions: Vec<Session>,
    shared: Arc<Shared>,
    /// Chunks sent by each session.
    chunks: u64,
}

impl Run {
    /// Opens `count` sessions through `process`, which already has had `before` sessions.
    pub async fn open(process: &Process, vendor: &Vendor, count: usize, before: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let mut sessions = Vec::with_capacity(count);
        for number in before..before + count {
            let path = "/v3/ws?sample_rate=16000&format_turns=true";
            let (client, reader) = wire::connect(process.port, path).await;
            let mut session = vendor.session().await;
            let begin = format!(r#"{{"type":"Begin","id":"session-{number}","expires_at":4000000000}}"#);
            write(&mut session.out, &plain(begin.as_bytes()));
            tokio::spawn(read_audio(session.heard, Arc::clone(&shared)));
            let mut heard = reader;
            heard.text().await.expect("Begin");
            tokio::spawn(read_turns(heard, Arc::clone(&shared)));
            sessions.push(Session { client, vendor: session.out });
        }
        Self { sessions, shared, chunks: 0 }
    }

    /// All sessions send for `time`, each message at its due time, and wait until everything arrived.
    pub async fn speak(mut self, time: Duration) -> Self {
        let sender = std::thread::spawn(move || {
            let chunks = (time.as_nanos() / CHUNK.as_nanos()) as u64;
            let start = now() + 5_000_000;
            let step = CHUNK.as_nanos() as u64 / self.sessions.len() as u64;
            let mut audio = wire::binary(&[0x55; CHUNK_BYTES]);
            let stamp_at = audio.len() - CHUNK_BYTES;
            for chunk in 0..chunks {
                for (index, session) in self.sessions.iter_mut().enumerate() {
                    let due = start + chunk * CHUNK.as_nanos() as u64 + index as u64 * step;
                    if let Some(wait) = due.checked_sub(now()) {
                        std::thread::sleep(Duration::from_nanos(wait));
                    }
                    audio[stamp_at..stamp_at + 8].copy_from_slice(&due.to_le_bytes());
                    session.client.send(&audio);
                    self.shared.sent.fetch_add(1, Ordering::Relaxed);
                    // Keeps sessions out of step with each other.
                    let own = self.chunks + chunk + index as u64 * 7;
                    if own.is_multiple_of(CHUNKS_A_PARTIAL) {
                        write(&mut session.vendor, &turn(own / CHUNKS_A_PARTIAL, due));
                        self.shared.sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            self.chunks += chunks;
            self
        });
        let run = tokio::task::spawn_blocking(move || sender.join().expect("the sender")).await.expect("join");
        let deadline = Instant::now() + Duration::from_secs(10);
        while run.shared.heard.load(Ordering::Relaxed) < run.sent() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        run
    }

    /// Drops the samples so far.
    pub fn forget(&self) {
        *self.shared.samples.lock().expect("lock") = Samples::default();
        self.shared.sent.store(0, Ordering::Relaxed);
        self.shared.heard.store(0, Ordering::Relaxed);
    }

    pub fn samples(&self) -> Samples {
        std::mem::take(&mut self.shared.samples.lock().expect("lock"))
    }

    /// Number of messages sent, in both directions.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }
}

async fn read_audio(mut heard: Heard, shared: Arc<Shared>) {
    while let Some(stamp) = heard.stamp().await {
        let late = Duration::from_nanos(now().saturating_sub(u64::from_le_bytes(stamp)));
        shared.samples.lock().expect("lock").audio.push(late);
        shared.heard.fetch_add(1, Ordering::Relaxed);
    }
}

async fn read_turns(mut reader: wire::Reader, shared: Arc<Shared>) {
    while let Some(text) = reader.text().await {
        let due = text.get(STAMP).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let due: u64 = due.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&text)));
        shared.samples.lock().expect("lock").turns.push(Duration::from_nanos(now().saturating_sub(due)));
        shared.heard.fetch_add(1, Ordering::Relaxed);
    }
}

/// The vendor's `number`th message of a conversation.
fn turn(number: u64, due: u64) -> Vec<u8> {
    const SAID: &str = "well i called about the order again the one from last week and nobody has answered me";
    let (order, step) = (number / PARTIALS_A_TURN, number % PARTIALS_A_TURN);
    let last = step + 1 == PARTIALS_A_TURN;
    let said: Vec<&str> = SAID.split(' ').take(5 + step as usize).collect();
    let words: Vec<String> = said
        .iter()
        .enumerate()
        .map(|(index, word)| {
            let start = order * 4000 + index as u64 * 200;
            format!(
                r#"{{"start":{start},"end":{},"text":"{word}","confidence":0.98,"word_is_final":{last}}}"#,
                start + 180
            )
        })
        .collect();
    let (text, words) = (said.join(" "), words.join(","));
    plain(
        format!(
            r#"{{"at":"{due:020}","turn_order":{order},"turn_is_formatted":{last},"end_of_turn":{last},"transcript":"{text}","end_of_turn_confidence":0.5,"words":[{words}],"utterance":"","type":"Turn"}}"#
        )
        .as_bytes(),
    )
}

/// A text frame as a server sends it.
fn plain(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a short frame");
    let mut frame = vec![0x81];
    if length < 126 {
        frame.push(length as u8);
    } else {
        frame.push(126);
        frame.extend(length.to_be_bytes());
    }
    frame.extend(payload);
    frame
}

fn write(socket: &mut TcpStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("send: {error}"),
        }
    }
}

/// The turns that the daemon's tap had to leave out: finals, and partials.
pub async fn gaps(port: u16) -> u64 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("connect");
    let request = format!("GET /metrics HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("write");
    let mut text = String::new();
    socket.read_to_string(&mut text).await.expect("read");
    let count = |name: &str| {
        text.lines()
            .filter(|line| line.starts_with(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>()
    };
    assert!(count("sidetone_proxy_tapped_frames_total") > 0.0, "the tap runs");
    count("sidetone_proxy_tap_overruns_total") as u64 + count("sidetone_queue_dropped_total{queue=\"stt_tap\"}") as u64
}
