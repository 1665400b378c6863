//! The protocol of `GET /v1/subscribe` (DESIGN 5.2): subscriptions over the hub, on one socket.
//!
//! A subscription is a reader of the hub, a filter, and the snapshots that it still owes. Knows no HTTP (the router
//! hands over a socket) and no session (a [`Views`] shows the current state of a call).
//!
//! | file | what it contains |
//! |---|---|
//! | `request` | parses and checks the client's frames |
//! | `frames` | builds the daemon's frames, apart from events |
//! | `subscription` | one subscription: which snapshots it owes, which events it sends |
//! | `named_calls`, `all_calls` | the two scopes: named calls, all calls |
//! | `pager` | lists the open calls of which a subscription to all calls first sends snapshots |
//! | `lookup` | reads from the journal besides events |
//! | `backlog` | the missed events of calls that a subscription to all calls resumes |
//! | `socket` | the loop: reads, pings, writes, closes |

mod all_calls;
mod backlog;
mod ending;
mod frames;
mod lookup;
mod named_calls;
mod pager;
mod request;
mod shown;
mod socket;
mod subscription;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use self::frames::SNAPSHOT_TURNS;

use futures::future::BoxFuture;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::base::metric::Register as _;
use crate::base::ws::ServerSocket;
use crate::hub::Hub;
use crate::journal::Store;
use crate::types::CallId;
use crate::types::view::View;

/// The subprotocol that is echoed when offered.
pub const SUBPROTOCOL: &str = "sidetone.v1";

/// Time between the daemon's pings (DESIGN 5.2), for [`Deps::ping_interval`].
pub const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Interval at which the journal's health is checked.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// Why a call cannot be shown now. The caller should try again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ViewError(pub String);

/// Shows the current state of calls.
pub trait Views: Send + Sync {
    /// The call after its newest *committed* event, or after an earlier one; never with anything that is not durable.
    /// `None` if the call does not exist.
    fn view<'a>(&'a self, call: &'a CallId) -> BoxFuture<'a, Result<Option<Arc<View>>, ViewError>>;
}

/// What subscriptions use.
pub struct Deps {
    /// The hub, and through it the journal.
    pub hub: Hub,
    /// Shows the current state of calls.
    pub views: Arc<dyn Views>,
    /// Names of the configured analyses.
    pub analyses: Vec<String>,
    /// `subscribe.subscribe_timeout_ms`
    pub subscribe_timeout: Duration,
    /// Time between the daemon's pings; after two unanswered pings the socket is closed.
    pub ping_interval: Duration,
    /// `limits.subscriptions_per_socket`
    pub subscriptions_per_socket: usize,
    /// `limits.calls_per_subscription`
    pub calls_per_subscription: usize,
    /// True while the journal accepts appends, from [`watch_health`].
    pub health: watch::Receiver<bool>,
    pub metrics: Metrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: u16,
}

/// `sidetone_subscribe_sockets`, `sidetone_subscribe_subscriptions`, `sidetone_subscribe_frames_total`,
/// `sidetone_subscribe_snapshots_total`, `sidetone_subscribe_closed_total{code}`.
#[derive(Debug, Clone)]
pub struct Metrics {
    sockets: Gauge,
    subscriptions: Gauge,
    frames: Counter,
    snapshots: Counter,
    closed: Family<CodeLabel, Counter>,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            sockets: registry.metric("sidetone_subscribe_sockets", "Open sockets of subscribers"),
            subscriptions: registry.metric("sidetone_subscribe_subscriptions", "Open subscriptions"),
            frames: registry.metric("sidetone_subscribe_frames", "Frames sent to subscribers"),
            snapshots: registry.metric("sidetone_subscribe_snapshots", "Snapshots sent"),
            closed: registry
                .metric("sidetone_subscribe_closed", "Sockets of subscribers that the daemon closed, by close code"),
        }
    }
}

/// Serves one subscriber until either side closes its socket. When `stop` is cancelled, the subscriber gets `reconnect`
/// and what is still to come, and then the socket is closed. When `revoked` is cancelled, the subscriber gets an error
/// and the socket is closed, even if frames are still unread.
///
/// # Cancel safety
/// When this future is dropped, the socket is dropped; subscriptions hold nothing that outlives them.
pub async fn serve(socket: ServerSocket, deps: Arc<Deps>, stop: CancellationToken, revoked: CancellationToken) {
    // The future is on the heap, because it holds subscriptions and buffers.
    Box::pin(socket::serve(socket, deps, stop, revoked)).await;
}

/// Watches whether the journal accepts appends, for [`Deps::health`]. Must be called within a runtime; ends when `stop`
/// is cancelled.
pub fn watch_health(store: Arc<dyn Store>, stop: CancellationToken) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(true);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(HEALTH_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {
                    let well = store.health().is_ok();
                    sender.send_if_modified(|known| std::mem::replace(known, well) != well);
                }
            }
        }
    });
    receiver
}
