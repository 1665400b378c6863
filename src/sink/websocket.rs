//! `kind = "websocket"`: connects to the consumer and pushes the frames of a subscription to all calls.
//!
//! A frame counts as taken once the peer has answered a ping that was sent after it. Other frames are sent again after
//! a reconnect. Messages from the peer are ignored.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::feed::Tap;
use super::{Delivery, Kind, Sink};
use crate::base::backoff::Backoff;
use crate::base::settings::Section;
use crate::base::ws::{self, ClientSocket, Incoming};
use crate::protocol::CloseCode;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of one message from the peer, bytes.
const MAX_INCOMING_BYTES: usize = 64 * 1024;
/// Size of the frames in one write, bytes.
const BATCH_BYTES: usize = 64 * 1024;
/// Interval of pings to a peer that is sent nothing else.
const IDLE_PING: Duration = Duration::from_secs(20);
/// A ping that is not answered within this time ends the connection.
const PONG_TIMEOUT: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After a stop, delivery ends once no frame has come for this time.
const STOP_QUIET: Duration = Duration::from_millis(300);
/// Maximum time of delivery after a stop.
const STOP_GRACE: Duration = Duration::from_secs(3);

pub(super) struct WebSocket;

impl Kind for WebSocket {
    fn name(&self) -> &'static str {
        "websocket"
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["ws", "wss"]
    }

    fn own_keys(&self) -> &'static [&'static str] {
        &[]
    }

    fn takes_live(&self) -> bool {
        true
    }

    fn read(&self, _section: &mut Section<'_>) -> Arc<dyn Delivery> {
        Arc::new(WebSocket)
    }
}

impl Delivery for WebSocket {
    fn run(self: Arc<Self>, sink: Sink, stop: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(run(sink, stop))
    }
}

async fn run(mut sink: Sink, stop: CancellationToken) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    while !stop.is_cancelled() {
        let dial = ws::connect(sink.config.url.as_str(), &sink.config.headers, MAX_INCOMING_BYTES, CONNECT_TIMEOUT);
        let dialled = tokio::select! {
            dialled = dial => dialled,
            () = stop.cancelled() => break,
        };
        let why = match dialled {
            Ok(socket) => match deliver(&mut sink, socket, &mut backoff, &stop).await {
                Some(why) => why,
                None => break,
            },
            Err(error) => error.to_string(),
        };
        sink.metrics.retries.inc();
        sink.metrics.behind.set(sink.feed.behind(sink.position.order()));
        let pause = backoff.pause(rand::random());
        tracing::warn!(sink = sink.config.name, why, ?pause, "the sink's peer cannot be reached; reconnecting");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => break,
        }
    }
    sink.position.store().await;
}

async fn maybe(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A ping without an answer yet. The answer confirms the frames up to `order`: `frames` more than the ping before.
struct Ping {
    order: u64,
    frames: u64,
    until: Instant,
}

/// Delivers over one connection. `None`: stopped in order; otherwise the reason why the connection ended.
async fn deliver(
    sink: &mut Sink,
    mut socket: ClientSocket,
    backoff: &mut Backoff,
    stop: &CancellationToken,
) -> Option<String> {
    let Sink { config, feed, position, metrics, .. } = sink;
    let mut tap: Tap<'_> = feed.tap(&config.name, position.order(), true, None);
    // Read up to here, and sent as far as wanted.
    let mut read_to = position.order();
    let mut unconfirmed = 0;
    let mut ping: Option<Ping> = None;
    let mut idle = Instant::now() + IDLE_PING;
    let mut quiet: Option<Instant> = None;
    let mut grace: Option<Instant> = None;
    loop {
        if ping.is_none() && (read_to > position.order() || Instant::now() >= idle) {
            if let Err(error) = socket.ping().await {
                return Some(error.to_string());
            }
            ping = Some(Ping { order: read_to, frames: unconfirmed, until: Instant::now() + PONG_TIMEOUT });
            unconfirmed = 0;
            idle = Instant::now() + IDLE_PING;
        }
        metrics.behind.set(feed.behind(position.order()));
        let is_stopping = grace.is_some();
        tokio::select! {
            biased;
            incoming = socket.recv() => match incoming {
                Ok(Incoming::Pong) => {
                    if let Some(Ping { order, frames, .. }) = ping.take() {
                        metrics.delivered.inc_by(frames);
                        backoff.reset();
                        position.advance(order).await;
                    }
                }
                Ok(Incoming::Closed { code, .. }) => return Some(format!("the peer closed the connection with code \
                    {code}")),
                Ok(Incoming::Text(_) | Incoming::Binary(_) | Incoming::Ping) => {}
                Err(error) => return Some(error.to_string()),
            },
            () = maybe(ping.as_ref().map(|ping| ping.until)) => return Some("the peer does not answer \
                pings".to_owned()),
            () = stop.cancelled(), if !is_stopping => {
                quiet = Some(Instant::now() + STOP_QUIET);
                grace = Some(Instant::now() + STOP_GRACE);
            }
            () = maybe(grace), if is_stopping => break,
            // Nothing has come for a while, and everything is confirmed.
            () = maybe(quiet), if is_stopping && position.order() >= read_to => break,
            (pieces, upto) = tap.next(BATCH_BYTES) => {
                unconfirmed += pieces.len() as u64;
                if !pieces.is_empty() {
                    if let Err(error) = socket.send(pieces.into_iter().map(|piece| piece.text)).await {
                        return Some(error.to_string());
                    }
                    idle = Instant::now() + IDLE_PING;
                    quiet = quiet.map(|_| Instant::now() + STOP_QUIET);
                }
                read_to = upto;
            }
            () = maybe(position.due()) => position.store().await,
            () = tokio::time::sleep_until(idle), if ping.is_none() => {}
        }
    }
    socket.close(CloseCode::GoingAway.number(), "going away").await;
    None
}
