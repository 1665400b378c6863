//! Metrics of proxied sessions.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::super::feed::Counters;
use crate::base::metric::Register as _;

#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Number of sessions that are being relayed.
    pub sessions: Gauge,
    /// Messages relayed, in both directions.
    pub relayed: Counter<u64, AtomicU64>,
    /// Upstream connections that failed, or on which the vendor sent nothing.
    pub upstream_failures: Counter<u64, AtomicU64>,
    /// Counters of the feed to the pipeline.
    pub(super) feed: Counters,
    /// Stretches of speech that were dropped because the pipeline was behind.
    pub overruns: Counter<u64, AtomicU64>,
    /// In-stream answers sent.
    pub answers: Counter<u64, AtomicU64>,
    /// In-stream answers that failed or came too late.
    pub failed_answers: Counter<u64, AtomicU64>,
}

impl Metrics {
    /// Registers all metrics.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            sessions: registry.metric("sidetone_proxy_sessions", "STT sessions being relayed"),
            relayed: registry.metric("sidetone_proxy_relayed_messages", "Messages relayed, in both directions"),
            upstream_failures: registry.metric(
                "sidetone_proxy_upstream_failures",
                "STT upstream connections that were refused, got no answer or no WebSocket",
            ),
            overruns: registry.metric(
                "sidetone_proxy_tap_overruns",
                "Stretches of speech dropped because the \
                pipeline was behind",
            ),
            answers: registry.metric("sidetone_proxy_answers", "In-stream answers sent"),
            failed_answers: registry
                .metric("sidetone_proxy_failed_answers", "In-stream answers that failed or came too late"),
            feed: Counters {
                frames: registry.metric("sidetone_proxy_tapped_frames", "Frames sent to the pipeline"),
                garbled: registry
                    .metric("sidetone_proxy_garbled_frames", "Frames relayed that the pipeline could not read"),
                not_understood: registry
                    .metric("sidetone_proxy_not_understood", "Relayed sessions of which no frame was understood"),
                refused: registry.metric("sidetone_proxy_refused_calls", "Relayed streams without a call"),
            },
        }
    }
}
