//! Counters of proxied sessions.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::super::feed::Counters;

/// What the proxy counts.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Sessions being relayed.
    pub sessions: Gauge,
    /// Messages relayed, both ways.
    pub relayed: Counter<u64, AtomicU64>,
    /// Upstreams that could not be had, or said nothing.
    pub upstream_failures: Counter<u64, AtomicU64>,
    /// The way to the pipeline.
    pub(super) feed: Counters,
    /// Holes because the pipeline was behind.
    pub overruns: Counter<u64, AtomicU64>,
    /// In-stream answers sent.
    pub answers: Counter<u64, AtomicU64>,
    /// In-stream answers that failed or came too late.
    pub failed_answers: Counter<u64, AtomicU64>,
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("sidetone_proxy_sessions", "STT sessions being relayed", metrics.sessions.clone());
        registry.register("sidetone_proxy_relayed_messages", "Messages relayed, both ways", metrics.relayed.clone());
        registry.register(
            "sidetone_proxy_upstream_failures",
            "STT upstreams that refused, did not answer or were no WebSocket",
            metrics.upstream_failures.clone(),
        );
        registry.register("sidetone_proxy_tapped_frames", "Frames taken to the pipeline", metrics.feed.frames.clone());
        registry.register(
            "sidetone_proxy_garbled_frames",
            "Frames relayed that the pipeline could not read",
            metrics.feed.garbled.clone(),
        );
        registry.register(
            "sidetone_proxy_tap_overruns",
            "Holes because the pipeline was behind",
            metrics.overruns.clone(),
        );
        registry.register(
            "sidetone_proxy_refused_calls",
            "Streams relayed without a call",
            metrics.feed.refused.clone(),
        );
        registry.register("sidetone_proxy_answers", "In-stream answers sent", metrics.answers.clone());
        registry.register(
            "sidetone_proxy_failed_answers",
            "In-stream answers that failed or came too late",
            metrics.failed_answers.clone(),
        );
        metrics
    }
}
