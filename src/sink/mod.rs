//! Sinks: configured consumers that get everything in the hub, at least once, from a stored position.
//!
//! A sink is a task with its own reader of the hub: a slow or dead one falls behind without affecting anything else.
//! Its position is stored only after its consumer has taken everything before it. Kinds are listed in [`SINKS`]; a new
//! kind is one file and one line there. Knows no session and no subscriber.

mod config;
mod dead;
mod feed;
mod position;
#[cfg(test)]
mod tests;
mod webhook;
mod websocket;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures::future::BoxFuture;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

pub use config::Config;

use self::feed::Feed;
use self::position::Position;
use crate::base::metric::Register as _;
use crate::base::settings::Section;
use crate::hub::Hub;

/// One kind of consumer.
pub trait Kind: Send + Sync {
    /// The kind's name in the configuration.
    fn name(&self) -> &'static str;

    /// URL schemes that it supports.
    fn schemes(&self) -> &'static [&'static str];

    /// Keys of the configuration that [`Kind::read`] reads. In a sink of another kind, they are errors.
    fn own_keys(&self) -> &'static [&'static str];

    /// Returns true if sinks of this kind also take frames without a `seq`: partials and deltas.
    fn takes_live(&self) -> bool;

    /// Reads this kind's own settings of one sink. Invalid ones are reported to `section` and replaced by defaults.
    fn read(&self, section: &mut Section<'_>) -> Arc<dyn Delivery>;
}

/// How one sink delivers: its kind, with the kind's own settings.
pub trait Delivery: Send + Sync {
    /// Delivers until `stop`, then delivers the rest, for a few seconds at most.
    fn run(self: Arc<Self>, sink: Sink, stop: CancellationToken) -> BoxFuture<'static, ()>;
}

pub static SINKS: &[&dyn Kind] = &[&websocket::WebSocket, &webhook::Webhook];

/// Everything that a delivery works with.
pub struct Sink {
    config: Config,
    feed: Feed,
    position: Position,
    dir: PathBuf,
    metrics: SinkMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkLabel {
    sink: String,
}

/// `sidetone_sink_delivered_frames_total`, `sidetone_sink_retries_total`, `sidetone_sink_dead_letters_total`,
/// `sidetone_sink_behind_events`, by sink.
#[derive(Debug, Clone)]
pub struct Metrics {
    delivered: Family<SinkLabel, Counter>,
    retries: Family<SinkLabel, Counter>,
    dead_letters: Family<SinkLabel, Counter>,
    behind: Family<SinkLabel, Behind>,
}

#[derive(Debug, Clone)]
struct SinkMetrics {
    delivered: Counter,
    retries: Counter,
    dead_letters: Counter,
    behind: Behind,
}

/// How many events a sink is behind, about.
type Behind = Gauge<u64, AtomicU64>;

impl Metrics {
    /// Registers all metrics.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            delivered: registry.metric(
                "sidetone_sink_delivered_frames",
                "Frames that a sink's consumer has accepted, including \
                    repeated ones",
            ),
            retries: registry.metric("sidetone_sink_retries", "Failed attempts to reach a sink's consumer"),
            dead_letters: registry
                .metric("sidetone_sink_dead_letters", "Events that a sink's consumer refused permanently"),
            behind: registry.metric(
                "sidetone_sink_behind_events",
                "Events of all calls that came after a sink's stored position, about",
            ),
        }
    }

    fn of(&self, name: &str) -> SinkMetrics {
        let label = SinkLabel { sink: name.to_owned() };
        SinkMetrics {
            delivered: self.delivered.get_or_create(&label).clone(),
            retries: self.retries.get_or_create(&label).clone(),
            dead_letters: self.dead_letters.get_or_create(&label).clone(),
            behind: self.behind.get_or_create(&label).clone(),
        }
    }
}

/// Runs one sink until `stop`. `dir` contains the positions and dead letters of all sinks. A sink without a position
/// starts at the present, which is when this is called, not when the future is first polled.
///
/// # Cancel safety
/// If the future is dropped, the next run may deliver the frames since the stored position again.
pub fn run(
    config: Config,
    dir: PathBuf,
    hub: Hub,
    metrics: Metrics,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let newest = hub.newest();
    async move {
        let name = config.name.clone();
        let (file, loading) = (dir.clone(), name.clone());
        let position = match tokio::task::spawn_blocking(move || Position::load(&file, &loading, newest)).await {
            Ok(Ok(position)) => position,
            Ok(Err(error)) => {
                tracing::error!(sink = name, %error, "the sink is disabled: its position cannot be stored");
                return;
            }
            Err(_) => return,
        };
        tracing::info!(sink = name, kind = config.kind.name(), order = position.order(), "the sink has started");
        let feed = Feed::new(&config, hub);
        let delivery = Arc::clone(&config.delivery);
        delivery.run(Sink { metrics: metrics.of(&name), config, feed, position, dir }, stop).await;
    }
}
