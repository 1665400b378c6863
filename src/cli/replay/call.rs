//! The producer of one call: a client of `GET /v1/ingest` (DESIGN 5.1) that plays a recording, reconnects after a lost
//! connection, sends frames again that are not covered, and waits for `call.completed`.
//!
//! Knows no other call, and nothing of the daemon but its sockets.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use futures::FutureExt as _;
use serde::Deserialize as _;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use crate::base::ws::{self, ClientSocket, Incoming, Utf8Bytes, WsError};
use crate::cli::meter::Meter;
use crate::cli::reconnect::{RECONNECTS, after_dial, pause};
use crate::cli::target::{Target, next_step};
use crate::cli::turns;
use crate::protocol::close::{CloseCode, ReconnectWhen, reconnect_after};
use crate::protocol::ingest::{ServerFrame, Welcome};
use crate::protocol::{ErrorFrame, Event, Reconnect};
use crate::recording::Recording;
use crate::stt::Dialect;
use crate::types::Insight;

use super::Speed;
use super::expected::Listed;
use super::insights::{Arrival, Insights};
use super::outbox::Outbox;
use super::script::Script;
use super::stats::CallReport;

/// A batch gets no further frame once it has this many bytes, so that answers are read in between.
const BATCH_BYTES: usize = 16 * 1024;
/// With more unacknowledged bytes than this, the producer waits for an ack.
const WINDOW_BYTES: usize = 256 * 1024;
/// Longest wait for an ack: frames that change nothing need not be acknowledged.
const WINDOW_WAIT: Duration = Duration::from_millis(250);
/// Timeout of a connection and its handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of `welcome`.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest frame that the daemon sends, with a margin.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// How long acks are awaited on a connection after the daemon sent `reconnect`.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// Parameters of a replay.
pub(crate) struct Play<'a> {
    /// The daemon.
    pub(crate) target: &'a Target,
    /// The call's id, not in use yet.
    pub(crate) call_id: &'a str,
    pub(crate) recording: &'a Recording,
    /// Dialect of the recording.
    pub(crate) dialect: &'static dyn Dialect,
    /// Analyses to request; empty = the daemon's defaults.
    pub(crate) analyses: &'a [String],
    /// Pairs of route and variant.
    pub(crate) variants: &'a [(String, String)],
    /// Metadata of the call, a JSON object.
    pub(crate) meta: Option<&'a str>,
    pub(crate) speed: Speed,
    /// How long the call may be without any progress before it is given up.
    pub(crate) patience: Duration,
    /// Where progress is shown.
    pub(crate) meter: &'a Meter,
}

/// Plays a recording until its `call.completed`. Even after an error, the report contains the results so far.
///
/// # Cancel safety
/// Dropping the future closes the connection; the call stays open at the daemon.
pub(crate) async fn play(play: Play<'_>) -> (CallReport, Result<()>) {
    let mut producer = Producer::new(play);
    let played = producer.run().await;
    let listed = turns::list(producer.play.target, producer.play.call_id, producer.play.patience).await;
    let sent = producer.outbox.furthest();
    let (listed, result) = match (listed, played) {
        (Ok(listed), played) => (listed, played),
        (Err(error), Ok(())) => (Vec::new(), Err(error)),
        (Err(_), Err(error)) => (Vec::new(), Err(error)),
    };
    (producer.report(&listed, sent), result)
}

/// How a connection ended, except by an error that ends the call's replay.
enum End {
    Completed,
    Dropped { when: ReconnectWhen, wait: Option<Duration>, why: String },
}

impl End {
    fn lost(error: &WsError) -> Self {
        Self::Dropped { when: ReconnectWhen::Now, wait: None, why: error.to_string() }
    }
}

struct Producer<'a> {
    play: Play<'a>,
    url: String,
    stream_id: String,
    script: Script,
    outbox: Outbox,
    first_sent: Vec<Option<Instant>>,
    started: Option<Instant>,
    connections: usize,
    said: HashSet<String>,
    insights: Insights,
    report: CallReport,
}

impl<'a> Producer<'a> {
    fn new(play: Play<'a>) -> Self {
        let script = Script::of(play.recording, play.dialect);
        // The client chooses the id, so that a connection that is lost before its `welcome` can be resumed too.
        let stream_id = "s_1".to_owned();
        let mut query = vec![
            ("call_id", play.call_id.to_owned()),
            ("stream_id", stream_id.clone()),
            ("dialect", play.dialect.name().to_owned()),
            // A recording's times count from the start of its call.
            ("offset_ms", "0".to_owned()),
        ];
        if !play.analyses.is_empty() {
            query.push(("analyses", play.analyses.join(",")));
        }
        if !play.variants.is_empty() {
            let chosen: serde_json::Map<String, Value> =
                play.variants.iter().map(|(route, name)| (route.clone(), Value::from(name.clone()))).collect();
            query.push(("variants", Value::Object(chosen).to_string()));
        }
        if let Some(meta) = play.meta {
            query.push(("meta", meta.to_owned()));
        }
        Self {
            url: play.target.ws("/v1/ingest", &query),
            stream_id,
            first_sent: vec![None; script.frames.len()],
            script,
            outbox: Outbox::default(),
            started: None,
            connections: 0,
            said: HashSet::new(),
            insights: Insights::default(),
            report: CallReport::default(),
            play,
        }
    }

    async fn run(&mut self) -> Result<()> {
        let mut backoff = RECONNECTS;
        let mut lost_at: Option<Instant> = None;
        loop {
            let (when, wait, why) =
                match ws::connect(&self.url, &self.play.target.headers(), MAX_MESSAGE_BYTES, DIAL_TIMEOUT).await {
                    Ok(socket) => {
                        let welcomed = self.connections;
                        let end = Box::pin(self.converse(socket)).await?;
                        if self.connections > welcomed {
                            backoff.reset();
                            lost_at = None;
                        }
                        match end {
                            End::Completed => return Ok(()),
                            End::Dropped { when, wait, why } => (when, wait, why),
                        }
                    }
                    Err(error) => (after_dial(&error), None, error.to_string()),
                };
            if when == ReconnectWhen::Never {
                bail!("{why}");
            }
            let since = *lost_at.get_or_insert_with(Instant::now);
            if since.elapsed() > self.play.patience {
                bail!("no connection for {} s: {why}", self.play.patience.as_secs());
            }
            tokio::time::sleep(wait.unwrap_or_else(|| pause(&mut backoff, when))).await;
        }
    }

    async fn converse(&mut self, mut socket: ClientSocket) -> Result<End> {
        let welcome = match tokio::time::timeout(WELCOME_TIMEOUT, self.welcome(&mut socket)).await {
            Ok(Ok(welcome)) => welcome,
            Ok(Err(end)) => return end,
            Err(_) => {
                let why = format!("the daemon sent no `welcome` within {} s", WELCOME_TIMEOUT.as_secs());
                return Ok(End::Dropped { when: ReconnectWhen::Later, wait: None, why });
            }
        };
        self.connections += 1;
        self.outbox.welcomed(welcome.frames);
        // For a per-turn analysis this is an object by turn, not an insight.
        welcome.insights.values().flat_map(Insight::deserialize).for_each(|insight| self.insights.heard(&insight));
        let started = *self.started.get_or_insert_with(Instant::now);
        let mut heard = Instant::now();
        let mut window_full: Option<Instant> = None;
        let mut draining: Option<(Instant, Duration)> = None;
        loop {
            while let Some(incoming) = socket.recv().now_or_never() {
                heard = Instant::now();
                if let Some(end) = self.incoming(incoming, &mut draining)? {
                    return Ok(self.leave(socket, end).await);
                }
            }
            let now = Instant::now();
            if let Some((until, after)) = draining
                && (self.outbox.acked() == self.outbox.next() || now >= until)
            {
                socket.close(CloseCode::GoingAway.number(), "reconnecting, as the daemon asked").await;
                let why = "the daemon asked the client to reconnect".to_owned();
                return Ok(End::Dropped { when: ReconnectWhen::Now, wait: Some(after), why });
            }
            let full = self.script.bytes(self.outbox.acked()..self.outbox.next()) > WINDOW_BYTES;
            window_full = if full { window_full.or(Some(now)) } else { None };
            let window_open = window_full.is_none_or(|since| now.duration_since(since) >= WINDOW_WAIT);
            if draining.is_none() && window_open {
                let batch = self.batch(started, now);
                if !batch.is_empty() {
                    window_full = None;
                    if let Err(error) = socket.send(batch).await {
                        return Ok(End::lost(&error));
                    }
                    continue;
                }
            }
            let done = self.outbox.next() == self.script.frames.len();
            let patience = done.then(|| heard + self.play.patience);
            let wake = [
                draining.map(|(until, _)| until),
                window_full.map(|since| since + WINDOW_WAIT),
                (draining.is_none() && window_full.is_none()).then(|| self.due(started)).flatten(),
                patience,
            ];
            let wake = wake.into_iter().flatten().min().unwrap_or(now + Duration::from_secs(1));
            tokio::select! {
                incoming = socket.recv() => {
                    heard = Instant::now();
                    if let Some(end) = self.incoming(incoming, &mut draining)? {
                        return Ok(self.leave(socket, end).await);
                    }
                }
                () = sleep_until(wake) => {
                    if patience.is_some_and(|until| Instant::now() >= until) {
                        bail!(
                            "all frames were sent, but nothing was received for {} s: the call did not complete",
                            self.play.patience.as_secs()
                        );
                    }
                }
            }
        }
    }

    async fn leave(&self, socket: ClientSocket, end: End) -> End {
        if matches!(end, End::Completed) {
            socket.close(CloseCode::Done.number(), "done").await;
        }
        end
    }

    /// Waits for `welcome`; `Err` if the connection ends before it.
    async fn welcome(&mut self, socket: &mut ClientSocket) -> Result<Welcome<'static>, Result<End>> {
        loop {
            match socket.recv().await {
                Ok(Incoming::Text(text)) => match read(&text) {
                    ServerFrame::Welcome(welcome) => return Ok(*welcome),
                    frame => {
                        if let Some(end) = self.frame(frame, &mut None).transpose() {
                            return Err(end);
                        }
                    }
                },
                other => {
                    if let Some(end) = self.incoming(other, &mut None).transpose() {
                        return Err(end);
                    }
                }
            }
        }
    }

    fn incoming(
        &mut self,
        incoming: Result<Incoming, WsError>,
        draining: &mut Option<(Instant, Duration)>,
    ) -> Result<Option<End>> {
        match incoming {
            Ok(Incoming::Text(text)) => self.frame(read(&text), draining),
            Ok(Incoming::Closed { code, reason }) => {
                let why = format!("the daemon closed the connection: {code} {reason}");
                Ok(Some(End::Dropped { when: reconnect_after(code), wait: None, why }))
            }
            Ok(Incoming::Binary(_) | Incoming::Ping | Incoming::Pong) => Ok(None),
            Err(error @ (WsError::TooLarge { .. } | WsError::Protocol(_))) => Err(anyhow!(error)),
            Err(error) => Ok(Some(End::lost(&error))),
        }
    }

    fn frame(&mut self, frame: ServerFrame, draining: &mut Option<(Instant, Duration)>) -> Result<Option<End>> {
        match frame {
            ServerFrame::Ack(ack) => {
                let now = Instant::now();
                for index in self.outbox.acknowledged(ack.frames) {
                    if let (true, Some(sent)) = (self.script.is_final[index], self.first_sent[index]) {
                        self.report.acks.push(now - sent);
                    }
                }
            }
            ServerFrame::Event(event) => match &event.event {
                Event::InsightUpdated { insight } => self.insights.heard(insight),
                Event::InsightFailed { .. } => self.report.failures += 1,
                Event::CallCompleted { .. } => return Ok(Some(End::Completed)),
                _ => {}
            },
            ServerFrame::Reconnect(Reconnect { after_ms, grace_ms, .. }) => {
                let [after, grace] = [after_ms, grace_ms].map(Duration::from_millis);
                *draining = Some((Instant::now() + grace.min(DRAIN_WAIT), after));
            }
            ServerFrame::Error(ErrorFrame { code, message, fatal, temporary, .. }) => {
                if fatal && !temporary {
                    bail!("the daemon refused: {code}: {message}{}", next_step(&code));
                }
                let said = format!("{code}: {message}");
                if self.said.insert(code) {
                    self.play.meter.warn(&format!("{}: {said}", self.play.call_id));
                }
                if fatal {
                    return Ok(Some(End::Dropped { when: ReconnectWhen::Later, wait: None, why: said }));
                }
            }
            ServerFrame::Welcome(_) | ServerFrame::Unknown => {}
        }
        Ok(None)
    }

    /// When the next frame is due; `None` once all are sent.
    fn due(&self, started: Instant) -> Option<Instant> {
        let index = self.outbox.next();
        (index < self.script.frames.len()).then(|| {
            // The replay's own `end` is sent with the last frame.
            let at = self.play.recording.frames.get(index).map_or(self.play.recording.duration(), |frame| frame.at);
            started + self.play.speed.scale(at)
        })
    }

    /// Takes the frames that are due, and marks them as sent.
    fn batch(&mut self, started: Instant, now: Instant) -> Vec<Utf8Bytes> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let fresh = self.outbox.furthest();
        while bytes < BATCH_BYTES && self.due(started).is_some_and(|due| due <= now) {
            let index = self.outbox.next();
            self.outbox.sent();
            self.first_sent[index].get_or_insert(now);
            bytes += self.script.frames[index].len();
            batch.push(self.script.frames[index].clone());
        }
        self.play.meter.advance(self.outbox.furthest() - fresh);
        batch
    }

    fn report(self, listed: &[Listed], sent: usize) -> CallReport {
        let found = self.script.expected.find(listed, &self.stream_id, sent);
        let mut report = self.report;
        report.turns = listed.len();
        report.lost = found.lost;
        report.insights = self.insights.count();
        report.resent = self.outbox.resent();
        report.reconnects = self.connections.saturating_sub(1);
        for Arrival { analysis, newest, at } in self.insights.arrivals {
            let sent = found.frame_of.get(&newest).and_then(|frame| self.first_sent[*frame]);
            if let Some(sent) = sent {
                report.insight_times.entry(analysis).or_default().push(at - sent);
            }
        }
        report
    }
}

/// A frame of the daemon; one that cannot be read counts as one of a later version.
fn read(text: &str) -> ServerFrame {
    ServerFrame::read(text).unwrap_or(ServerFrame::Unknown)
}
