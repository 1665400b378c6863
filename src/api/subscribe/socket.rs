//! The loop of one subscriber's socket: one task reads, pings, gathers frames, writes them, and closes the socket.
//!
//! It holds at most one batch of frames and one snapshot at a time; everything later stays in the journal until then.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

use super::ending::{End, lost};
use super::pager::Owed;
use super::request::{self, Refusal, Request};
use super::shown::{Shown, show};
use super::subscription::Subscription;
use super::{Deps, frames};
use crate::base::heartbeat::{Heartbeat, HeartbeatAction};
use crate::base::ws::{Incoming, Socket, Utf8Bytes, WsError};
use crate::hub::HubError;
use crate::protocol::{CloseCode, ErrorCode, ErrorFrame};

/// Approximate size of the batch of frames that is written at once, bytes.
const BATCH_BYTES: usize = 32 * 1024;
/// Wait before the next attempt after the journal could not be read.
const RETRY: Duration = Duration::from_secs(1);
/// Maximum number of unknown types that are reported; later ones are ignored silently.
const UNKNOWN_TYPES: usize = 64;
/// The first snapshots of a new subscription are sent together with its `subscribed`, so that everything that happens
/// once the client has read them comes as events. This bounds their number.
const EAGER_SNAPSHOTS: usize = 16;
/// Bounds the bytes of the snapshots that are sent with `subscribed`.
const EAGER_BYTES: usize = 128 * 1024;
/// Bounds the time to make the snapshots that are sent with `subscribed`.
const EAGER_TIME: Duration = Duration::from_secs(1);
/// After `reconnect` was sent, the socket is closed when no frame has come for this time.
const DRAIN_QUIET: Duration = Duration::from_millis(300);
/// After `reconnect` was sent, the socket is closed after this time at the latest.
const DRAIN_GRACE: Duration = Duration::from_secs(3);

/// The view of a call for one subscription.
type PendingView = BoxFuture<'static, (String, Owed, Shown)>;
/// A subscription that looks up what it needs to begin.
type Opening = BoxFuture<'static, Result<(Subscription, Utf8Bytes), Refusal>>;

struct Session {
    deps: Arc<Deps>,
    notify: Arc<Notify>,
    subscriptions: Vec<Subscription>,
    /// The subscription that is being opened. The socket is not read until it is open.
    opening: Option<Opening>,
    /// Number of subscriptions that were made so far.
    made: u64,
    /// Index of the subscription that is read first in the next round.
    first: usize,
    out: Vec<Utf8Bytes>,
    unknown_types: HashSet<String>,
    /// Set if a subscription was made since the last write.
    is_new: bool,
    /// Neither the journal nor views are read before this time.
    retry_at: Option<Instant>,
}

/// Serves one subscriber.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: Socket<S>,
    deps: Arc<Deps>,
    stop: CancellationToken,
    revoked: CancellationToken,
) {
    deps.metrics.sockets.inc();
    let mut session = Session {
        deps: Arc::clone(&deps),
        notify: Arc::new(Notify::new()),
        subscriptions: Vec::new(),
        opening: None,
        made: 0,
        first: 0,
        out: vec![frames::welcome(whole_ms(deps.ping_interval))],
        unknown_types: HashSet::new(),
        is_new: false,
        retry_at: None,
    };
    // The revocation also interrupts a write: a write finishes only if the peer reads.
    let end = tokio::select! {
        biased;
        () = revoked.cancelled() => End::Revoked,
        end = session.run(&mut socket, &stop) => end,
    };
    #[expect(clippy::cast_possible_wrap, reason = "a handful")]
    deps.metrics.subscriptions.dec_by(session.subscriptions.len() as i64);
    // Frees the readers before a close that may take long.
    drop(session);
    end.close(socket, &deps, &stop, &revoked).await;
    deps.metrics.sockets.dec();
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn maybe(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Session {
    /// If this future is dropped at any point, the socket can still be closed.
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        stop: &CancellationToken,
    ) -> End {
        let notify = Arc::clone(&self.notify);
        // Made once and not in every round, because making it takes a lock that all sockets share.
        let mut health = WatchStream::new(self.deps.health.clone());
        let mut stopped = std::pin::pin!(stop.cancelled());
        let mut heartbeat = Heartbeat::new(self.deps.ping_interval);
        let must_subscribe_by = Instant::now() + self.deps.subscribe_timeout;
        let mut drain_end: Option<Instant> = None;
        let mut quiet_end: Option<Instant> = None;
        let mut view: Option<PendingView> = None;
        loop {
            if std::mem::take(&mut self.is_new) {
                self.eager(&mut view).await;
            }
            let busy = match self.gather() {
                Ok(busy) => busy,
                Err(end) => return end,
            };
            if !self.out.is_empty() {
                self.deps.metrics.frames.inc_by(self.out.len() as u64);
                if let Err(error) = socket.send(self.out.drain(..)).await {
                    return lost(&error);
                }
                quiet_end = drain_end.map(|end| end.min(Instant::now() + DRAIN_QUIET));
            }
            if view.is_none() && self.retry_at.is_none() {
                view = self.next_view();
                if !self.out.is_empty() {
                    continue;
                }
            }
            let is_opening = self.opening.is_some();
            tokio::select! {
                biased;
                incoming = socket.recv(), if !is_opening => {
                    heartbeat.heard();
                    if let Err(end) = self.take(incoming) {
                        return self.say_last(socket, end).await;
                    }
                }
                opened = async {
                    match &mut self.opening {
                        Some(opening) => opening.await,
                        None => std::future::pending().await,
                    }
                } => {
                    self.opening = None;
                    self.opened(opened);
                }
                (subscription, owed, result) = async {
                    match &mut view {
                        Some(view) => view.await,
                        None => std::future::pending().await,
                    }
                } => {
                    view = None;
                    self.take_view(&subscription, owed, result);
                }
                () = &mut stopped, if drain_end.is_none() => {
                    let after_ms = 500 + rand::random::<u64>() % 2000;
                    self.out.push(frames::reconnect(after_ms, whole_ms(DRAIN_GRACE)));
                    drain_end = Some(Instant::now() + DRAIN_GRACE);
                }
                () = maybe(quiet_end) => {
                    return End::Close(CloseCode::GoingAway, "going away; reconnect and resume".to_owned());
                }
                beat = heartbeat.beat(!is_opening) => {
                    if beat == HeartbeatAction::Gone {
                        return End::Close(CloseCode::TooSlow, "two pings were not answered; reconnect and resume".to_owned());
                    }
                    if let Err(error) = socket.ping().await {
                        return lost(&error);
                    }
                }
                () = tokio::time::sleep_until(must_subscribe_by), if self.made == 0 && !is_opening => {
                    let timeout = self.deps.subscribe_timeout.as_millis();
                    let reason = format!("no subscribe within {timeout} ms (subscribe.subscribe_timeout_ms)");
                    return End::Close(CloseCode::NoSubscribe, reason);
                }
                Some(well) = health.next() => {
                    if !well {
                        self.out.push(frames::journal_unavailable());
                    }
                }
                () = maybe(self.retry_at) => self.retry_at = None,
                () = std::future::ready(()), if busy => {}
                () = notify.notified(), if !busy => {}
            }
        }
    }

    /// Gathers the first snapshots of a new subscription.
    async fn eager(&mut self, view: &mut Option<PendingView>) {
        let until = Instant::now() + EAGER_TIME;
        for _ in 0..EAGER_SNAPSHOTS {
            if view.is_none() && self.retry_at.is_none() {
                *view = self.next_view();
            }
            let Some(pending) = view else { return };
            let Ok((subscription, owed, result)) = tokio::time::timeout_at(until, pending).await else { return };
            *view = None;
            self.take_view(&subscription, owed, result);
            if self.out.iter().map(|frame| frame.len()).sum::<usize>() > EAGER_BYTES {
                return;
            }
        }
    }

    /// Sends the last frame before a close.
    async fn say_last<S: AsyncRead + AsyncWrite + Unpin>(&mut self, socket: &mut Socket<S>, end: End) -> End {
        if !matches!(end, End::Peer) && !self.out.is_empty() && socket.send(self.out.drain(..)).await.is_err() {
            return End::Peer;
        }
        end
    }

    /// Takes frames from the subscriptions in rotation; returns true if there may be more.
    fn gather(&mut self) -> Result<bool, End> {
        if self.retry_at.is_some() {
            return Ok(false);
        }
        let count = self.subscriptions.len();
        let mut busy = false;
        for index in 0..count {
            let bytes: usize = self.out.iter().map(|frame| frame.len()).sum();
            let Some(left) = BATCH_BYTES.checked_sub(bytes).filter(|left| *left > 0) else {
                self.first = (self.first + index) % count;
                return Ok(true);
            };
            let subscription = &mut self.subscriptions[(self.first + index) % count];
            match subscription.poll(&self.deps, left, &mut self.out) {
                Ok(more) => busy |= more,
                Err(error @ HubError::Gone { .. }) => {
                    return Err(End::Close(CloseCode::TooSlow, format!("{error}; resume without it")));
                }
                Err(error @ HubError::Damaged { .. }) => {
                    self.out.push(frames::error(&ErrorFrame::new(ErrorCode::CallDamaged, error.to_string())));
                    busy = true;
                }
                Err(HubError::Unavailable(_)) => {
                    self.out.push(frames::journal_unavailable());
                    self.retry_at = Some(Instant::now() + RETRY);
                    return Ok(false);
                }
            }
        }
        if count > 0 {
            self.first = (self.first + 1) % count;
        }
        Ok(busy)
    }

    fn next_view(&mut self) -> Option<PendingView> {
        let deps = Arc::clone(&self.deps);
        for subscription in &mut self.subscriptions {
            match subscription.next_view(&deps) {
                Ok(None) => {}
                Ok(Some(owed)) => {
                    let id = subscription.id().to_owned();
                    return Some(Box::pin(async move {
                        let result = show(&deps, &owed).await;
                        (id, owed, result)
                    }));
                }
                Err(_) => {
                    self.out.push(frames::journal_unavailable());
                    self.retry_at = Some(Instant::now() + RETRY);
                    return None;
                }
            }
        }
        None
    }

    fn take_view(&mut self, subscription: &str, owed: Owed, result: Shown) {
        // The subscription may have ended meanwhile.
        let Some(subscription) = self.subscriptions.iter_mut().find(|known| known.id() == subscription) else {
            return;
        };
        match result {
            Ok((newest, view)) => {
                self.out.extend(subscription.viewed(&owed.call, newest, view.as_deref(), &self.deps));
            }
            Err(error) => {
                let message = format!("call {} cannot be shown now: {error}", owed.call);
                let error = ErrorFrame::new(ErrorCode::JournalUnavailable, message).temporary();
                self.out.push(frames::error(&error));
                subscription.not_viewed(owed);
                self.retry_at = Some(Instant::now() + RETRY);
            }
        }
    }

    fn take(&mut self, incoming: Result<Incoming, WsError>) -> Result<(), End> {
        match incoming {
            Ok(Incoming::Text(text)) => {
                match request::parse(&text, &self.deps) {
                    Ok(request) => self.answer(request),
                    Err(refusal) => self.refuse(refusal),
                }
                Ok(())
            }
            Ok(Incoming::Binary(_)) => {
                let message = "expected a text message with one JSON object, found a binary one".to_owned();
                self.refuse(Refusal { id: None, code: ErrorCode::BadFrame, message });
                Ok(())
            }
            Ok(Incoming::Ping | Incoming::Pong) => Ok(()),
            Ok(Incoming::Closed { .. }) => Err(End::Peer),
            Err(error @ (WsError::Lost(_) | WsError::Stalled | WsError::Evicted)) => Err(lost(&error)),
            Err(error @ WsError::TooLarge { .. }) => {
                let reason = error.to_string();
                let error = ErrorFrame::new(ErrorCode::FrameTooLarge, reason.clone()).fatal();
                self.out.push(frames::error(&error));
                Err(End::Close(CloseCode::FrameTooLarge, reason))
            }
            Err(WsError::Protocol(message)) => Err(End::Close(CloseCode::BadMessage, message)),
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.out.push(frames::refused(refusal));
    }

    fn opened(&mut self, opened: Result<(Subscription, Utf8Bytes), Refusal>) {
        match opened {
            Ok((subscription, reply)) => {
                self.made += 1;
                self.is_new = true;
                self.subscriptions.push(subscription);
                self.deps.metrics.subscriptions.inc();
                self.out.push(reply);
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Ping { id } => self.out.push(frames::pong(id)),
            Request::Subscribe(subscribe) => {
                let limit = self.deps.subscriptions_per_socket;
                let id = subscribe.id.clone();
                if self.subscriptions.len() >= limit {
                    let message = format!("limits.subscriptions_per_socket is {limit}; unsubscribe one first");
                    return self.refuse(Refusal { id, code: ErrorCode::TooManySubscriptions, message });
                }
                let name = format!("sub_{}", self.made + 1);
                let (deps, notify) = (Arc::clone(&self.deps), Arc::clone(&self.notify));
                self.opening =
                    Some(Box::pin(async move { Subscription::open(*subscribe, name, &deps, &notify).await }));
            }
            Request::Unsubscribe { id, subscription } => {
                match self.subscriptions.iter().position(|known| known.id() == subscription) {
                    Some(index) => {
                        self.subscriptions.remove(index);
                        self.deps.metrics.subscriptions.dec();
                        self.out.push(frames::unsubscribed(id, subscription));
                    }
                    None => {
                        let there: Vec<&str> = self.subscriptions.iter().map(Subscription::id).collect();
                        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
                        let message = format!("subscription: no such subscription; there are: {there}");
                        self.refuse(Refusal { id, code: ErrorCode::UnknownSubscription, message });
                    }
                }
            }
            Request::Unknown { id, kind } => {
                let kind: String = kind.chars().take(60).collect();
                if self.unknown_types.len() < UNKNOWN_TYPES && self.unknown_types.insert(kind.clone()) {
                    let message = format!("type: expected one of subscribe, unsubscribe, ping, found {kind:?}");
                    self.refuse(Refusal { id, code: ErrorCode::UnknownType, message });
                }
            }
        }
    }
}
