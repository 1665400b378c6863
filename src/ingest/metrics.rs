//! Metrics of ingest connections.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::base::metric::Register as _;
use crate::protocol::{CloseCode, ErrorCode};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DialectLabel {
    dialect: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CloseLabel {
    code: u16,
}

#[derive(Debug, Clone, Default)]
pub struct Metrics {
    frames: Family<DialectLabel, Counter<u64, AtomicU64>>,
    refused: Family<CodeLabel, Counter<u64, AtomicU64>>,
    closed: Family<CloseLabel, Counter<u64, AtomicU64>>,
    /// Number of open connections.
    pub connections: Gauge,
}

impl Metrics {
    /// Registers all metrics.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            frames: registry.metric("sidetone_ingest_frames", "Text frames read, by dialect"),
            refused: registry.metric("sidetone_ingest_refused_frames", "Frames refused, by error code"),
            closed: registry.metric(
                "sidetone_ingest_closed",
                "Connections of producers that the daemon closed, by \
                close code",
            ),
            connections: registry.metric("sidetone_ingest_connections", "Producers connected"),
        }
    }

    pub fn frames(&self, dialect: &'static str) -> Counter<u64, AtomicU64> {
        self.frames.get_or_create(&DialectLabel { dialect }).clone()
    }

    /// Counts a refused connection.
    pub fn refused(&self, code: ErrorCode) {
        self.refused.get_or_create(&CodeLabel { code: code.as_str() }).inc();
    }

    /// Counts a connection that the daemon closes.
    pub fn closed(&self, code: CloseCode) {
        self.closed.get_or_create(&CloseLabel { code: code.number() }).inc();
    }
}
