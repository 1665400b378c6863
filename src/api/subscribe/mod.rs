//! The protocol of `GET /v1/subscribe` (DESIGN 5.2): subscriptions over the hub, on one socket.
//!
//! A subscription is a reader of the hub, a filter, and the snapshots that it still owes. Knows no HTTP (the router
//! hands over a socket) and no session (a [`Views`] shows a call as it stands).
//!
//! | file | what it is |
//! |---|---|
//! | `request` | what a client says, checked |
//! | `frames` | what we say, beside the events themselves |
//! | `subscription` | one subscription: what is owed, what is let through |
//! | `list`, `star` | the two scopes: named calls, all calls |
//! | `pager` | the open calls whose snapshots all calls begin with |
//! | `lookup` | what is asked of the journal beside events |
//! | `backlog` | what calls that all calls are resumed with have missed |
//! | `socket` | the loop: reads, pings, writes, closes |

mod backlog;
mod frames;
mod list;
mod lookup;
mod pager;
mod request;
mod socket;
mod star;
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

/// Time between our pings (DESIGN 5.2), for [`Deps::ping_interval`].
pub const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How often the journal is asked whether it works.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// Why a call could not be shown now. Trying again is right.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ViewError(pub String);

/// Shows calls as they stand.
pub trait Views: Send + Sync {
    /// The call after its newest *committed* event, or an earlier one; never with anything that is not durable. `None`
    /// where there is no such call.
    fn view<'a>(&'a self, call: &'a CallId) -> BoxFuture<'a, Result<Option<Arc<View>>, ViewError>>;
}

/// What subscriptions use.
pub struct Deps {
    /// The journal's tail, and through it the journal.
    pub hub: Hub,
    /// Calls as they stand.
    pub views: Arc<dyn Views>,
    /// Names of the analyses that there are.
    pub analyses: Vec<String>,
    /// `subscribe.subscribe_timeout_ms`
    pub subscribe_timeout: Duration,
    /// Time between our pings; two of them unanswered close the socket.
    pub ping_interval: Duration,
    /// `limits.subscriptions_per_socket`
    pub subscriptions_per_socket: usize,
    /// `limits.calls_per_subscription`
    pub calls_per_subscription: usize,
    /// Whether appends work, from [`watch_health`].
    pub health: watch::Receiver<bool>,
    /// Counters.
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
    /// Registers them all.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            sockets: registry.metric("sidetone_subscribe_sockets", "Open sockets of subscribers"),
            subscriptions: registry.metric("sidetone_subscribe_subscriptions", "Open subscriptions"),
            frames: registry.metric("sidetone_subscribe_frames", "Frames sent to subscribers"),
            snapshots: registry.metric("sidetone_subscribe_snapshots", "Snapshots sent"),
            closed: registry
                .metric("sidetone_subscribe_closed", "Sockets of subscribers that we closed, by close code"),
        }
    }
}

/// Serves one subscriber until its socket is closed, by whichever side. Once `stop` is cancelled it is told to
/// reconnect, gets what is still coming, and is closed; once `revoked` is, it is told so and closed, whatever it has not
/// read.
///
/// # Cancel safety
/// Cancelled, the socket is dropped; subscriptions hold nothing that outlives them.
pub async fn serve(socket: ServerSocket, deps: Arc<Deps>, stop: CancellationToken, revoked: CancellationToken) {
    // On the heap: the future holds subscriptions and buffers.
    Box::pin(socket::serve(socket, deps, stop, revoked)).await;
}

/// Watches whether appends work, for [`Deps::health`]. Must be called within a runtime; ends with `stop`.
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
