//! `GET /v1/ingest`: the socket of one producer (DESIGN 5.1).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Metrics;
use super::params::{self, Params, Results};
use super::pump::Pump;
use super::record::{Recorder, Track};
use super::watch::Watch;
use crate::base::pulse::{Beat, Pulse};
use crate::base::queue::{SendError, Sender};
use crate::base::ws::{Incoming, ServerSocket, Utf8Bytes, WsError};
use crate::hub::{Filter, Hub, Include, Interest, Item, Reader, Wants};
use crate::keys::REVOKED;
use crate::protocol::event::Kind;
use crate::protocol::{self, CloseCode, ErrorCode, ErrorFrame, Reconnect, ingest, tag};
use crate::session::command::{Ack, Attach, Attached, Command, Detach, Frames, Goodbye, Outbound, Outlet, Welcome};
use crate::session::{SessionError, Sessions};
use crate::stt;

/// Bytes of events taken from the hub at once.
const READ_BYTES: usize = 64 * 1024;
/// We ping so often; two unanswered pings end the connection.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Close reason for a connection that was evicted.
const EVICTED: &str = "limits.inflight_bytes is used up, and this connection has the most; reconnect and resend";
/// A frame that waits for its session is counted as in flight above this size, bytes.
const SMALL_BYTES: usize = 4 * 1024;
/// Memory of a decoded frame with its words, as a multiple of its text.
const READ_FRAME: usize = 3;
/// What `reconnect` tells a producer to wait.
const RECONNECT_AFTER_MS: u64 = 1_500;

/// What an ingest socket uses.
#[derive(Clone)]
pub struct Deps {
    /// The calls.
    pub sessions: Sessions,
    /// Their events.
    pub hub: Hub,
    /// Counters.
    pub metrics: Metrics,
    /// `[record]`
    pub recorder: Recorder,
}

/// Serves `socket` until either side ends it, or `revoked` says that the producer's key holds no more. Never fails: what
/// goes wrong is told to the producer.
pub async fn serve(socket: ServerSocket, query: &str, revoked: CancellationToken, deps: &Deps) {
    deps.metrics.connections.inc();
    let session = deps.sessions.deps();
    let variants = |route: &str, variant: &str| session.gateway.check_variant(route, variant);
    match params::read(query, &session.call.analyses, &variants, &session.call.limits) {
        Err(complaint) => farewell(socket, Some(complaint), CloseCode::BadMessage, "bad parameter", deps).await,
        Ok(params) => connect(socket, params, revoked, deps).await,
    }
    deps.metrics.connections.dec();
}

/// Attaches to the call's session and runs the connection.
async fn connect(mut socket: ServerSocket, params: Params, revoked: CancellationToken, deps: &Deps) {
    let outlet = Arc::new(Outlet::default());
    let (commands, attached) = match attach(&mut socket, &params, &outlet, deps).await {
        Ok(found) => found,
        Err(error) => {
            let (complaint, close) = session_complaint(&error);
            return farewell(socket, Some(complaint), close, "refused", deps).await;
        }
    };
    let welcome = match attached {
        Attached::Refused { code, message, close } => {
            let complaint = ErrorFrame::new(code, message).fatal();
            return farewell(socket, Some(complaint), close, code.as_str(), deps).await;
        }
        Attached::Welcome(welcome) | Attached::Completed(welcome) => welcome,
    };
    // A call that is over is read from its beginning: its last event is what is to be shown.
    let completed = welcome.connection == 0;
    let after = if completed { 0 } else { welcome.seq };
    let results = if completed { Results::None } else { params.results };
    let reader = deps.hub.reader(Interest::Calls(vec![(params.call.clone(), after)]), wants(results));
    let track = deps.recorder.track(&params.call, &params.stream, params.dialect.name());
    let mut connection = Connection {
        track,
        pump: Pump::new(stt::dialect(welcome.dialect).unwrap_or(params.dialect), &welcome.carry),
        watch: Watch::new(params.dialect),
        filter: filter(results, &session_analyses(deps)),
        results,
        frames: deps.metrics.frames(params.dialect.name()),
        socket,
        commands: commands.clone(),
        waiting: None,
        outlet,
        reader,
        params,
        deps,
        welcome,
    };
    // Heard in the middle of a write too: what is written then comes to its end only where the peer reads.
    let ended = tokio::select! {
        biased;
        () = revoked.cancelled() => End::Revoked,
        ended = connection.run() => ended,
    };
    let Connection { socket, params, welcome, waiting, .. } = connection;
    // Everything read is queued before this; the session takes it first.
    if let Some(command) = waiting {
        let _ = commands.send(command).await;
    }
    let gone = Command::Detach(Box::new(Detach { connection: welcome.connection, stream: params.stream }));
    let _ = commands.send(gone).await;
    match ended {
        End::Gone | End::Left => {}
        End::Close { complaint, code, reason } => farewell(socket, complaint, code, reason, deps).await,
        End::Stalled => {
            let code = CloseCode::TooSlow;
            deps.metrics.closed(code);
            let stop = &deps.sessions.deps().drain.stop;
            tokio::select! {
                () = socket.close_stalled(code.number(), "no byte was taken for 10 s; reconnect and resend", stop) => {}
                () = revoked.cancelled() => {}
            }
        }
        End::Revoked => {
            let (code, error) = (CloseCode::Unauthenticated, ErrorCode::Unauthenticated);
            deps.metrics.closed(code);
            let frame = encode(&ErrorFrame::new(error, REVOKED).fatal());
            socket.dismiss(frame, code.number(), error.as_str()).await;
        }
    }
}

fn session_analyses(deps: &Deps) -> Vec<String> {
    deps.sessions.deps().call.analyses.names().to_vec()
}

/// The events that wake a producer. A call may have thousands of producers, and few of them want all events.
fn wants(results: Results) -> Wants {
    match results {
        Results::All => Wants::EVENTS,
        Results::Insights => Wants::INSIGHTS.and(Wants::END),
        Results::None => Wants::END,
    }
}

fn filter(results: Results, analyses: &[String]) -> Filter {
    Filter {
        analyses: (results == Results::None).then(Vec::new),
        include: Include { turns: results == Results::All, words: false, partials: false, deltas: false },
        latest: analyses.to_vec(),
    }
}

async fn attach(
    socket: &mut ServerSocket,
    params: &Params,
    outlet: &Arc<Outlet>,
    deps: &Deps,
) -> Result<(Sender<Command>, Attached), SessionError> {
    for _ in 0..3 {
        let (reply, answer) = oneshot::channel();
        let attach = Attach {
            stream: params.stream.clone(),
            dialect: params.dialect,
            offset_ms: params.offset_ms,
            meta: params.meta.clone(),
            analyses: params.analyses.clone(),
            variants: params.variants.clone(),
            outlet: Arc::clone(outlet),
            reply,
        };
        let commands = deps.sessions.tell(&params.call, true, Command::Attach(Box::new(attach))).await?;
        // An answer that never comes means that the session was just leaving, or was rebuilt: ask again.
        if let Ok(attached) = until_answered(socket, outlet, answer).await {
            return Ok((commands, attached));
        }
        // What that session said is no word of the next one.
        drop(outlet.take());
    }
    Err(SessionError::Failed(params.call.clone()))
}

/// Waits for the session's answer; a producer that has to wait, because the journal takes no writes, is told why.
async fn until_answered(
    socket: &mut ServerSocket,
    outlet: &Outlet,
    mut answer: oneshot::Receiver<Attached>,
) -> Result<Attached, oneshot::error::RecvError> {
    loop {
        tokio::select! {
            biased;
            answered = &mut answer => return answered,
            outbound = outlet.next() => {
                if let Some(goodbye) = outbound.goodbye {
                    outlet.close(goodbye);
                    return answer.await;
                }
                // A producer that is gone is noticed once it is attached.
                let _ = socket.send(outbound.complaints.iter().map(encode)).await;
            }
        }
    }
}

/// How a connection ends.
enum End {
    /// The peer is gone.
    Gone,
    /// We close it.
    Close { complaint: Option<ErrorFrame>, code: CloseCode, reason: &'static str },
    /// It took no byte: we close it, and wait for it to read that.
    Stalled,
    /// Its key is revoked: it is told, and cut where it does not read.
    Revoked,
    /// The session takes no more commands.
    Left,
}

struct Connection<'a> {
    track: Option<Track>,
    socket: ServerSocket,
    commands: Sender<Command>,
    /// A command for which the session's queue had no room: the socket is not read until it has.
    waiting: Option<Command>,
    outlet: Arc<Outlet>,
    reader: Reader,
    filter: Filter,
    results: Results,
    pump: Pump,
    watch: Watch,
    frames: prometheus_client::metrics::counter::Counter<u64, std::sync::atomic::AtomicU64>,
    params: Params,
    deps: &'a Deps,
    welcome: Welcome,
}

impl Connection<'_> {
    /// Dropped at any point, the socket can be closed still.
    async fn run(&mut self) -> End {
        match self.exchange().await {
            End::Left => self.left().await,
            end => end,
        }
    }

    /// The session is gone. It may have said why.
    async fn left(&mut self) -> End {
        let end = match self.outlet.take() {
            Some(outbound) => self.outbound(outbound).await,
            None => None,
        };
        end.unwrap_or_else(restarted)
    }

    async fn exchange(&mut self) -> End {
        // The welcome is the first frame, whatever else there is to say.
        let complaints = self.params.complaints.iter().chain(&self.welcome.complaints).map(encode);
        let greeting: Vec<Utf8Bytes> = std::iter::once(self.welcome_frame()).chain(complaints).collect();
        if let Err(error) = self.socket.send(greeting).await {
            return lost(&error);
        }
        // Made once, not for every frame: making them takes locks that all sockets share.
        let stop = self.deps.sessions.deps().drain.stop.clone();
        let mut stopped = std::pin::pin!(stop.cancelled());
        let mut pulse = Pulse::new(PING_INTERVAL);
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => {
                    let _ = self.socket.send([reconnect_frame()]).await;
                    return End::Close { complaint: None, code: CloseCode::GoingAway, reason: "the daemon is stopping" };
                }
                outbound = self.outlet.next() => {
                    if let Some(end) = self.outbound(outbound).await {
                        return end;
                    }
                }
                batch = self.reader.next(READ_BYTES) => {
                    let Ok(batch) = batch else {
                        return End::Close { complaint: None, code: CloseCode::TooSlow, reason: "behind retention; reconnect" };
                    };
                    if let Some(end) = self.events(&batch.items).await {
                        return end;
                    }
                }
                room = self.commands.room(), if self.waiting.is_some() => {
                    if let Some(command) = self.waiting.take()
                        && (!room || !self.pass(command))
                    {
                        return End::Left;
                    }
                }
                incoming = self.socket.recv(), if self.waiting.is_none() => {
                    pulse.heard();
                    if let Some(end) = self.incoming(incoming) {
                        return end;
                    }
                }
                message = self.watch.expired() => self.complain(ErrorCode::NotUnderstood, message),
                beat = pulse.beat(self.waiting.is_none()) => {
                    if beat == Beat::Gone {
                        let reason = "two pings were not answered; reconnect and resend";
                        return End::Close { complaint: None, code: CloseCode::TooSlow, reason };
                    }
                    if let Err(error) = self.socket.ping().await {
                        return lost(&error);
                    }
                }
            }
        }
    }

    fn welcome_frame(&self) -> Utf8Bytes {
        let welcome = &self.welcome;
        encode(&ingest::Welcome {
            tag: tag::Welcome,
            version: protocol::VERSION,
            call_id: self.params.call.clone(),
            epoch: Cow::Borrowed(&welcome.epoch),
            stream_id: self.params.stream.clone(),
            acked: welcome.acked,
            frames: welcome.frames,
            insights: Cow::Borrowed(&welcome.insights),
            insights_omitted: Cow::Borrowed(&welcome.insights_omitted),
        })
    }

    fn incoming(&mut self, incoming: Result<Incoming, WsError>) -> Option<End> {
        match incoming {
            Ok(Incoming::Text(text)) => self.frame(&text),
            Ok(Incoming::Binary(_)) => {
                self.complain(
                    ErrorCode::BadFrame,
                    "expected a text message with one JSON object, found a binary one".into(),
                );
                None
            }
            Ok(Incoming::Ping | Incoming::Pong) => None,
            Ok(Incoming::Closed { .. }) => Some(End::Gone),
            Err(WsError::TooLarge { size, limit }) => {
                let message = format!("a frame of {size} bytes is over the limit of {limit} (ingest.max_frame_bytes)");
                let complaint = Some(ErrorFrame::new(ErrorCode::FrameTooLarge, message).fatal());
                Some(End::Close { complaint, code: CloseCode::FrameTooLarge, reason: "frame too large" })
            }
            Err(WsError::Protocol(message)) => Some(End::Close {
                complaint: Some(ErrorFrame::new(ErrorCode::BadFrame, message).fatal()),
                code: CloseCode::BadMessage,
                reason: "bad frame",
            }),
            Err(error) => Some(lost(&error)),
        }
    }

    fn frame(&mut self, text: &Utf8Bytes) -> Option<End> {
        self.frames.inc();
        if let Some(track) = &self.track {
            track.frame(text);
        }
        let (events, complaint) = self.pump.feed(text);
        if let Some(complaint) = complaint {
            self.deps.metrics.refused(complaint.code);
            self.outlet.complain(complaint);
        }
        if let Some(message) = self.watch.note(text, self.pump.fit) {
            self.complain(ErrorCode::NotUnderstood, message);
        }
        let frames = Frames {
            connection: self.welcome.connection,
            stream: self.params.stream.clone(),
            count: self.pump.count,
            carry: Arc::clone(&self.pump.carry),
            events,
            lease: self
                .socket
                .holder()
                .filter(|_| text.len() > SMALL_BYTES)
                .map(|holder| holder.charge(READ_FRAME * text.len())),
        };
        (!self.pass(Command::Frames(Box::new(frames)))).then_some(End::Left)
    }

    /// Queues a command, or keeps it until there is room; `false` where the session is gone.
    fn pass(&mut self, command: Command) -> bool {
        match self.commands.offer(command) {
            Ok(()) => true,
            Err(SendError::Full(command)) => {
                self.waiting = Some(command);
                true
            }
            Err(SendError::Closed(_)) => false,
        }
    }

    fn complain(&self, code: ErrorCode, message: String) {
        self.deps.metrics.refused(code);
        self.outlet.complain(ErrorFrame::new(code, message));
    }

    async fn outbound(&mut self, outbound: Outbound) -> Option<End> {
        let complaints = outbound.complaints.iter().map(encode);
        let ack = outbound.ack.map(|ack| {
            let Ack { stream, frames, turn_order } = ack;
            encode(&ingest::Ack { tag: tag::Ack, stream_id: stream, frames, turn_order })
        });
        let reconnect = outbound.reconnect.then(reconnect_frame);
        let frames: Vec<Utf8Bytes> = complaints.chain(ack).chain(reconnect).collect();
        if let Err(error) = self.socket.send(frames).await {
            return Some(lost(&error));
        }
        let Goodbye { complaint, code, reason } = outbound.goodbye?;
        Some(End::Close { complaint, code, reason })
    }

    /// Events of the call: those that were asked for, and its end in any case.
    async fn events(&mut self, items: &[Item]) -> Option<End> {
        let mut frames = Vec::new();
        let mut over = None;
        for item in self.filter.pick(items, &self.deps.hub) {
            let Item::Event(frame) = item else { continue };
            let wanted = match self.results {
                Results::All => true,
                Results::Insights => frame.kind().is_insight(),
                Results::None => false,
            };
            if wanted || frame.kind().ends_call() {
                frames.push(frame.text().clone());
            }
            match frame.kind() {
                Kind::CallCompleted => over = Some((CloseCode::Done, "call completed")),
                kind if kind.ends_call() => over = Some((CloseCode::Internal, "call failed")),
                _ => {}
            }
            if over.is_some() {
                break;
            }
        }
        if !frames.is_empty()
            && let Err(error) = self.socket.send(frames).await
        {
            return Some(lost(&error));
        }
        over.map(|(code, reason)| End::Close { complaint: None, code, reason })
    }
}

/// The session was rebuilt under the connection.
fn restarted() -> End {
    let message = "the call is being taken up again from its journal; reconnect and resend from welcome.frames";
    let complaint = Some(ErrorFrame::new(ErrorCode::SessionRestarted, message).fatal().temporary());
    End::Close { complaint, code: CloseCode::GoingAway, reason: "session restarted" }
}

fn reconnect_frame() -> Utf8Bytes {
    encode(&Reconnect::new(RECONNECT_AFTER_MS, 0))
}

fn lost(error: &WsError) -> End {
    match error {
        WsError::Stalled => End::Stalled,
        WsError::Evicted => End::Close { complaint: None, code: CloseCode::TooSlow, reason: EVICTED },
        _ => End::Gone,
    }
}

fn session_complaint(error: &SessionError) -> (ErrorFrame, CloseCode) {
    let (code, temporary, close) = match error {
        SessionError::Limit { .. } => (ErrorCode::RateLimited, true, CloseCode::RateLimited),
        SessionError::Failed(_) => (ErrorCode::CallFailed, false, CloseCode::Internal),
        SessionError::Journal(_) => (ErrorCode::JournalUnavailable, true, CloseCode::Internal),
        SessionError::Stopping => (ErrorCode::Stopping, true, CloseCode::GoingAway),
        SessionError::Elsewhere { .. } => (ErrorCode::SessionRestarted, true, CloseCode::GoingAway),
        SessionError::UnknownCall(_) => (ErrorCode::UnknownCall, false, CloseCode::Internal),
    };
    (ErrorFrame { temporary, ..ErrorFrame::new(code, error.to_string()).fatal() }, close)
}

/// The frame as the socket takes it.
fn encode(frame: &impl Serialize) -> Utf8Bytes {
    Utf8Bytes::from(protocol::text(frame))
}

async fn farewell(
    mut socket: ServerSocket,
    complaint: Option<ErrorFrame>,
    code: CloseCode,
    reason: &'static str,
    deps: &Deps,
) {
    deps.metrics.closed(code);
    if let Some(complaint) = &complaint
        && socket.send([encode(complaint)]).await.is_err()
    {
        return;
    }
    socket.close(code.number(), reason).await;
}
