//! `[[source]]`: WebSocket servers to which the daemon connects, and which send turns.
//!
//! When a connection ends, the daemon connects again, with capped and jittered backoff. Every connection is a new
//! stream of its call, so that the call shows a gap. One socket may carry several calls.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::HeaderMap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::Value as Json;
use tokio::time::Instant;
use toml::Value;

use super::feed::{Counters, Feed, Stream};
use super::record::Recorder;
use super::watch::Watch;
use crate::base::backoff::Backoff;
use crate::base::heartbeat::{Heartbeat, HeartbeatAction};
use crate::base::metric::Register as _;
use crate::base::names;
use crate::base::secret::outline;
use crate::base::settings::{Problems, Section, found};
use crate::base::surrogates;
use crate::base::ws::{self, ClientSocket, Incoming, Utf8Bytes};
use crate::protocol::{CloseCode, ErrorCode};
use crate::session::Sessions;
use crate::stt::{self, Dialect};
use crate::types::{CallId, JsonMap, StreamId, id};

/// Largest message of a source, bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Time limit for connecting.
const DIAL: Duration = Duration::from_secs(10);
/// Waits before the next attempt to connect.
const RECONNECTS: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
/// After a connection that lasted this long, the wait begins with the shortest again.
const GOOD: Duration = Duration::from_secs(60);
/// Maximum number of calls on one connection.
const MAX_CALLS: usize = 4096;
/// Interval of the daemon's pings; after two unanswered pings the connection is closed.
const PING: Duration = Duration::from_secs(20);

/// How the call of a frame is determined.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Naming {
    /// All frames belong to this call.
    Fixed(CallId),
    /// A JSON pointer to the call id in a frame. A frame without an id belongs to the call that was named last.
    Pointer(String),
    /// The vendor's session id, or a new id if the vendor gives none.
    Session,
}

/// One `[[source]]` table.
#[derive(Clone)]
pub struct SourceConfig {
    name: String,
    url: String,
    headers: HeaderMap,
    dialect: &'static dyn Dialect,
    naming: Naming,
    analyses: Option<Vec<String>>,
    meta: JsonMap,
}

impl std::fmt::Debug for SourceConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SourceConfig").field("name", &self.name).field("dialect", &self.dialect.name()).finish()
    }
}

impl SourceConfig {
    /// Analyses that the source requests for its calls.
    pub fn analyses(&self) -> &[String] {
        self.analyses.as_deref().unwrap_or_default()
    }

    /// Reads all `[[source]]` tables; `analyses` are the names of the analyses that exist.
    pub fn read(value: Option<Value>, analyses: &[String], problems: &mut Problems) -> Vec<Self> {
        let items = match value {
            None => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(other) => {
                problems.push("source", format!("expected [[source]] tables, found {}", found(&other)));
                Vec::new()
            }
        };
        items
            .into_iter()
            .enumerate()
            .filter_map(|(index, item)| Self::read_one(format!("source[{index}]"), item, analyses, problems))
            .collect()
    }

    fn read_one(path: String, value: Value, analyses: &[String], problems: &mut Problems) -> Option<Self> {
        let mut section = Section::new(path.clone(), Some(value), problems);
        let name = section.string("name").unwrap_or_else(|| path.clone());
        let url = section.string("url");
        match &url {
            None if !section.has("url") => section.problem("url", "required, \"ws://…\" or \"wss://…\""),
            Some(url) if !url.starts_with("ws://") && !url.starts_with("wss://") => {
                section.problem("url", format!("expected \"ws://…\" or \"wss://…\", found {}", outline(url)));
            }
            _ => {}
        }
        let dialect = section.string("dialect").unwrap_or_else(|| "sidetone".to_owned());
        let known: Vec<&'static str> = stt::DIALECTS.iter().map(|dialect| dialect.name()).collect();
        let found = stt::dialect(&dialect);
        if found.is_none() {
            section.problem("dialect", names::unknown("dialect", &dialect, &known));
        }
        let (fixed, pointer) = (section.string("call_id"), section.string("call_id_at"));
        let naming = match (fixed, pointer) {
            (Some(_), Some(_)) => {
                section.problem("call_id_at", "call_id is set too; only one of them can name the call");
                None
            }
            (Some(fixed), None) => match CallId::parse(&fixed) {
                Ok(call) => Some(Naming::Fixed(call)),
                Err(error) => {
                    section.problem("call_id", error.to_string());
                    None
                }
            },
            (None, Some(pointer)) if pointer.starts_with('/') => Some(Naming::Pointer(pointer)),
            (None, Some(pointer)) => {
                section.problem(
                    "call_id_at",
                    format!("expected a JSON pointer such as \"/data/bot/id\", found {pointer:?}"),
                );
                None
            }
            (None, None) => Some(Naming::Session),
        };
        let wanted = section.strings("analyses");
        for name in wanted.iter().flatten().filter(|name| !analyses.contains(name)) {
            section.problem("analyses", names::unknown("analysis", name, analyses));
        }
        let meta = match section.take("meta").map(serde_json::to_value) {
            None => JsonMap::new(),
            Some(Ok(Json::Object(meta))) => meta,
            Some(_) => {
                section.problem("meta", "expected a table");
                JsonMap::new()
            }
        };
        let headers = section.headers("headers");
        section.finish();
        Some(Self { name, url: url?, headers, dialect: found?, naming: naming?, analyses: wanted, meta })
    }
}

/// Metrics of sources.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    connected: Gauge,
    dials: Counter<u64, AtomicU64>,
    failures: Counter<u64, AtomicU64>,
    feed: Counters,
}

impl Metrics {
    /// Registers all metrics.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            connected: registry.metric("sidetone_source_connections", "Sources connected"),
            dials: registry.metric("sidetone_source_dials", "Attempts to connect to sources"),
            failures: registry.metric("sidetone_source_failed_dials", "Failed attempts to connect to sources"),
            feed: Counters {
                frames: registry.metric("sidetone_source_frames", "Frames of sources"),
                not_understood: registry.metric(
                    "sidetone_source_not_understood",
                    "Connections of sources of which no frame was \
                        understood",
                ),
                garbled: registry.metric("sidetone_source_garbled_frames", "Frames of sources not understood"),
                refused: registry.metric("sidetone_source_refused_calls", "Streams of sources without a call"),
            },
        }
    }
}

/// Connects to a source again and again, until the daemon stops.
pub async fn run(config: SourceConfig, sessions: Sessions, recorder: Recorder, metrics: Metrics) {
    let stop = sessions.deps().drain.stop.clone();
    let mut backoff = RECONNECTS;
    loop {
        metrics.dials.inc();
        let began = Instant::now();
        let dialled = tokio::select! {
            () = stop.cancelled() => return,
            dialled = ws::connect(&config.url, &config.headers, MAX_MESSAGE_BYTES, DIAL) => dialled,
        };
        match dialled {
            Ok(socket) => {
                metrics.connected.inc();
                tracing::info!(source = config.name, "connected");
                let why = listen(socket, &config, &sessions, &recorder, &metrics).await;
                metrics.connected.dec();
                let Some(why) = why else { return };
                tracing::warn!(source = config.name, why, "connection to the source lost; reconnecting");
            }
            Err(error) => {
                metrics.failures.inc();
                tracing::warn!(source = config.name, %error, "connection to the source failed; retrying");
            }
        }
        if began.elapsed() > GOOD {
            backoff.reset();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.pause(rand::random())) => {}
        }
    }
}

/// Feeds the frames of one connection; returns why it ended, or `None` if the daemon stops.
async fn listen(
    mut socket: ClientSocket,
    config: &SourceConfig,
    sessions: &Sessions,
    recorder: &Recorder,
    metrics: &Metrics,
) -> Option<String> {
    let stop = sessions.deps().drain.stop.clone();
    let mut feeds: HashMap<Option<CallId>, Feed> = HashMap::new();
    let mut last: Option<CallId> = None;
    let mut heartbeat = Heartbeat::new(PING);
    let mut watch = Watch::new(config.dialect);
    let warn = |message: String| {
        metrics.feed.not_understood.inc();
        tracing::warn!(
            source = config.name,
            code = ErrorCode::NotUnderstood.as_str(),
            reason = message,
            "no frame of a source is understood"
        );
    };
    let why = loop {
        let incoming = tokio::select! {
            () = stop.cancelled() => break None,
            incoming = socket.recv() => incoming,
            () = next_message(&mut feeds) => continue,
            message = watch.expired() => {
                warn(message);
                continue;
            }
            beat = heartbeat.beat(true) => {
                if beat == HeartbeatAction::Gone || socket.ping().await.is_err() {
                    break Some("the peer does not answer pings".to_owned());
                }
                continue;
            }
        };
        heartbeat.heard();
        let text = match incoming {
            Ok(Incoming::Text(text)) => text,
            Ok(Incoming::Closed { code, reason }) => break Some(format!("closed: {code} {reason}")),
            Ok(_) => continue,
            Err(error) => break Some(error.to_string()),
        };
        let call = name(config, &text, &mut last);
        if !feeds.contains_key(&call) {
            if feeds.len() >= MAX_CALLS {
                tracing::warn!(
                    source = config.name,
                    "more than {MAX_CALLS} calls on one connection; frames of further calls are dropped"
                );
                continue;
            }
            let stream = Stream {
                stream: StreamId::mint(),
                dialect: config.dialect,
                call: call.clone(),
                meta: config.meta.clone(),
                analyses: config.analyses.clone(),
                variants: Default::default(),
                asking: None,
            };
            let feed = Feed::new(stream, sessions.clone(), recorder.clone(), metrics.feed.clone());
            feeds.insert(call.clone(), feed);
        }
        if let Some(feed) = feeds.get_mut(&call) {
            // While a session's queue is full, the socket is not read.
            let fit = feed.frame(text.clone(), Vec::new()).await;
            if let Some(message) = watch.note(&text, fit) {
                warn(message);
            }
        }
    };
    for (_, feed) in feeds {
        feed.detach().await;
    }
    if why.is_none() {
        socket.close(CloseCode::GoingAway.number(), "the daemon is stopping").await;
    }
    why
}

/// Waits for the next message of any session.
async fn next_message(feeds: &mut HashMap<Option<CallId>, Feed>) {
    if feeds.is_empty() {
        return std::future::pending().await;
    }
    let waits: Vec<_> = feeds.values_mut().map(|feed| Box::pin(feed.listen())).collect();
    futures::future::select_all(waits).await;
}

/// The call of a frame, as far as the configuration determines it.
fn name(config: &SourceConfig, text: &Utf8Bytes, last: &mut Option<CallId>) -> Option<CallId> {
    match &config.naming {
        Naming::Fixed(call) => Some(call.clone()),
        Naming::Session => None,
        Naming::Pointer(pointer) => {
            let frame: Json = surrogates::from_str(text).unwrap_or(Json::Null);
            let named = match frame.pointer(pointer) {
                Some(Json::String(text)) => Some(id::sanitize(text)),
                Some(Json::Number(number)) => Some(id::sanitize(&number.to_string())),
                _ => None,
            };
            if let Some(call) = named.and_then(|named| CallId::parse(&named).ok()) {
                *last = Some(call);
            }
            last.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<SourceConfig>, Vec<String>) {
        let mut problems = Problems::default();
        let value = text.parse::<toml::Table>().expect("toml").remove("source");
        let sources = SourceConfig::read(value, &["summary".to_owned()], &mut problems);
        (sources, problems.into_vec().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_source_is_read_whole_with_all_its_problems() {
        let (sources, problems) = read(
            "[[source]]\nurl = \"ws://127.0.0.1:1\"\ndialect = \"recall\"\ncall_id_at = \"/data/bot/id\"\nanalyses = [\"summary\"]\nmeta = { team = \"x\" }\nheaders = { X-Team = \"a\" }",
        );
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(sources[0].naming, Naming::Pointer("/data/bot/id".to_owned()));
        assert_eq!(sources[0].headers.len(), 1);
        let (sources, problems) =
            read("[[source]]\nurl = \"http://x\"\ndialect = \"morse\"\ncall_id = \"a/b\"\nanalyses = [\"moood\"]");
        assert!(sources.is_empty());
        let starts = ["source[0].url", "source[0].dialect", "source[0].call_id", "source[0].analyses"];
        assert!(problems.iter().zip(starts).all(|(problem, start)| problem.starts_with(start)), "{problems:?}");
        assert_eq!(read("source = 5").1.len(), 1);
    }

    #[test]
    fn calls_are_named_by_the_frame_or_by_the_one_before() {
        let (sources, _) = read("[[source]]\nurl = \"ws://x\"\ncall_id_at = \"/call\"");
        let mut last = None;
        let mut named = |text: &'static str| {
            name(&sources[0], &Utf8Bytes::from_static(text), &mut last).map(|call| call.to_string())
        };
        assert_eq!(named("{}"), None);
        assert_eq!(named(r#"{"call":"a b"}"#).as_deref(), Some("a_b"));
        assert_eq!(named(r#"{"x":1}"#).as_deref(), Some("a_b"));
        assert_eq!(named(r#"{"call":7}"#).as_deref(), Some("7"));
    }
}
