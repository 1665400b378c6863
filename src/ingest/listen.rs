//! `GET /v1/ingest`: the socket of one producer (DESIGN 5.1).

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Metrics;
use super::attachment::{Attachment, Wanted};
use super::ending::{self, End, send_close};
use super::params::{self, Params};
use super::record::{Recorder, Track};
use super::results::Results;
use super::watch::Watch;
use crate::base::heartbeat::{Heartbeat, HeartbeatAction};
use crate::base::ws::{Incoming, ServerSocket, Utf8Bytes, WsError};
use crate::hub::{Filter, Hub, Interest, Item, Reader};
use crate::protocol::{self, Close, CloseCode, ErrorCode, ErrorFrame, ingest, tag};
use crate::session::Sessions;
use crate::session::command::Outbound;

/// Bytes of events taken from the hub at once.
const READ_BYTES: usize = 64 * 1024;
/// Interval of the daemon's pings; after two unanswered pings the connection is closed.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// A frame that waits for its session is counted as in flight if it is larger than this, bytes.
const SMALL_BYTES: usize = 4 * 1024;
/// Memory of a decoded frame with its words, as a multiple of its text.
const READ_FRAME: usize = 3;

/// Dependencies of an ingest socket.
#[derive(Clone)]
pub struct Deps {
    pub sessions: Sessions,
    pub hub: Hub,
    pub metrics: Metrics,
    /// `[record]`
    pub recorder: Recorder,
}

/// Serves `socket` until either side closes it, or `revoked` is cancelled because the producer's key was revoked. Never
/// fails: errors are sent to the producer.
pub async fn serve(socket: ServerSocket, query: &str, revoked: CancellationToken, deps: &Deps) {
    deps.metrics.connections.inc();
    let session = deps.sessions.deps();
    let variants = |route: &str, variant: &str| session.gateway.check_variant(route, variant);
    match params::read(query, &session.call.analyses, &variants, &session.call.limits) {
        Err(error) => {
            let close = Close::after(error, CloseCode::BadMessage, "bad parameter");
            send_close(socket, close, &deps.metrics).await;
        }
        Ok(params) => connect(socket, params, revoked, deps).await,
    }
    deps.metrics.connections.dec();
}

/// Attaches to the call's session and serves the connection.
async fn connect(mut socket: ServerSocket, params: Params, revoked: CancellationToken, deps: &Deps) {
    let wanted = Wanted {
        stream: &params.stream,
        dialect: params.dialect,
        offset_ms: params.offset_ms,
        meta: &params.meta,
        analyses: params.analyses.as_deref(),
        variants: &params.variants,
        asking: None,
    };
    let attached = Attachment::attach(&deps.sessions, &params.call, wanted, Some(&mut socket)).await;
    let attachment = match attached {
        Ok(attachment) => attachment,
        Err(refused) => return send_close(socket, refused.close(), &deps.metrics).await,
    };
    // A completed call is read from its beginning, because the producer gets its last event.
    let over = attachment.is_over();
    let after = if over { 0 } else { attachment.welcome.seq };
    let results = if over { Results::None } else { params.results };
    let reader = deps.hub.reader(Interest::Calls(vec![(params.call.clone(), after)]), results.wants());
    let mut connection = Connection {
        track: deps.recorder.track(&params.call, &params.stream, params.dialect.name()),
        watch: Watch::new(params.dialect),
        filter: results.filter(deps.sessions.deps().call.analyses.names()),
        results,
        frames: deps.metrics.frames(params.dialect.name()),
        socket,
        attachment,
        reader,
        params,
        deps,
    };
    // The revocation also interrupts a write, which otherwise ends only when the peer reads.
    let ended = tokio::select! {
        biased;
        () = revoked.cancelled() => End::Revoked,
        ended = connection.run() => ended,
    };
    let Connection { socket, attachment, .. } = connection;
    // If the session is gone, it has no connection to detach.
    let _ = attachment.detach().await;
    ended.end(socket, &deps.metrics, &deps.sessions.deps().drain.stop, &revoked).await;
}

struct Connection<'a> {
    track: Option<Track>,
    socket: ServerSocket,
    /// While the attachment keeps frames that did not fit into the session's queue, the socket is not read.
    attachment: Attachment,
    reader: Reader,
    filter: Filter,
    results: Results,
    watch: Watch,
    frames: prometheus_client::metrics::counter::Counter<u64, std::sync::atomic::AtomicU64>,
    params: Params,
    deps: &'a Deps,
}

impl Connection<'_> {
    /// If this future is dropped at any point, the socket can still be closed.
    async fn run(&mut self) -> End {
        match self.exchange().await {
            End::Left => self.left().await,
            end => end,
        }
    }

    /// The end after the session went away; the session may have said why.
    async fn left(&mut self) -> End {
        let end = match self.attachment.outlet.take() {
            Some(outbound) => self.outbound(outbound).await,
            None => None,
        };
        end.unwrap_or_else(End::restarted)
    }

    async fn exchange(&mut self) -> End {
        // The `welcome` comes first, before any error.
        let errors = self.params.errors.iter().chain(&self.attachment.welcome.errors).map(encode);
        let greeting: Vec<Utf8Bytes> = std::iter::once(self.welcome_frame()).chain(errors).collect();
        if let Err(error) = self.socket.send(greeting).await {
            return End::lost(&error);
        }
        // Made once and not for every frame, because making it takes a lock that all sockets share.
        let stop = self.deps.sessions.deps().drain.stop.clone();
        let mut stopped = std::pin::pin!(stop.cancelled());
        let mut heartbeat = Heartbeat::new(PING_INTERVAL);
        loop {
            let reading = !self.attachment.is_waiting();
            tokio::select! {
                biased;
                () = &mut stopped => {
                    let _ = self.socket.send([ending::reconnect()]).await;
                    return End::close(CloseCode::GoingAway, "the daemon is stopping");
                }
                outbound = self.attachment.outlet.next() => {
                    if let Some(end) = self.outbound(outbound).await {
                        return end;
                    }
                }
                batch = self.reader.next(READ_BYTES) => {
                    let Ok(batch) = batch else {
                        return End::close(CloseCode::TooSlow, "the position was deleted by retention; reconnect");
                    };
                    if let Some(end) = self.events(&batch.items).await {
                        return end;
                    }
                }
                room = self.attachment.queue().room(), if !reading => {
                    if !room || !self.attachment.retry() {
                        return End::Left;
                    }
                }
                incoming = self.socket.recv(), if reading => {
                    heartbeat.heard();
                    if let Some(end) = self.incoming(incoming) {
                        return end;
                    }
                }
                message = self.watch.expired() => self.report_error(ErrorCode::NotUnderstood, message),
                beat = heartbeat.beat(reading) => {
                    if beat == HeartbeatAction::Gone {
                        return End::close(CloseCode::TooSlow, "two pings were not answered; reconnect and resend");
                    }
                    if let Err(error) = self.socket.ping().await {
                        return End::lost(&error);
                    }
                }
            }
        }
    }

    fn welcome_frame(&self) -> Utf8Bytes {
        let welcome = &self.attachment.welcome;
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
                let message = "expected a text message with one JSON object, found a binary one";
                self.report_error(ErrorCode::BadFrame, message.to_owned());
                None
            }
            Ok(Incoming::Ping | Incoming::Pong) => None,
            Ok(Incoming::Closed { .. }) => Some(End::Gone),
            Err(error) => Some(End::unread(&error)),
        }
    }

    fn frame(&mut self, text: &Utf8Bytes) -> Option<End> {
        self.frames.inc();
        if let Some(track) = &self.track {
            track.frame(text);
        }
        let holder = self.socket.holder().filter(|_| text.len() > SMALL_BYTES);
        let lease = holder.map(|holder| holder.charge(READ_FRAME * text.len()));
        let (frames, error) = self.attachment.decode(text, lease);
        if let Some(error) = error {
            self.deps.metrics.refused(error.code);
            self.attachment.outlet.report_error(error);
        }
        if let Some(message) = self.watch.note(text, self.attachment.fit()) {
            self.report_error(ErrorCode::NotUnderstood, message);
        }
        (!self.attachment.offer(frames)).then_some(End::Left)
    }

    fn report_error(&self, code: ErrorCode, message: String) {
        self.deps.metrics.refused(code);
        self.attachment.outlet.report_error(ErrorFrame::new(code, message));
    }

    async fn outbound(&mut self, outbound: Outbound) -> Option<End> {
        let errors = outbound.errors.iter().map(encode);
        let ack = outbound.ack.as_ref().map(encode);
        let reconnect = outbound.reconnect.then(ending::reconnect);
        let frames: Vec<Utf8Bytes> = errors.chain(ack).chain(reconnect).collect();
        if let Err(error) = self.socket.send(frames).await {
            return Some(End::lost(&error));
        }
        outbound.close.map(End::Close)
    }

    /// Sends events of the call: those that `results` asks for, and the call's end in any case.
    async fn events(&mut self, items: &[Item]) -> Option<End> {
        let (frames, over) = self.results.frames(&self.filter, items, &self.deps.hub);
        if !frames.is_empty()
            && let Err(error) = self.socket.send(frames).await
        {
            return Some(End::lost(&error));
        }
        over
    }
}

/// Serialises the frame for the socket.
fn encode(frame: &impl Serialize) -> Utf8Bytes {
    Utf8Bytes::from(protocol::text(frame))
}
