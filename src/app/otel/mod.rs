//! OpenTelemetry: a span for each request to the gateway, and a child span for each HTTP request that the gateway makes
//! for it. Needs the cargo feature `otel`; without it, this module does nothing.
//!
//! Knows no text of a request or an answer: spans have names, counts and times.

#[cfg(feature = "otel")]
mod export;
#[cfg(feature = "otel")]
mod spans;

#[cfg(feature = "otel")]
pub(super) use spans::Spans;

#[cfg(not(feature = "otel"))]
pub(super) use absent::Spans;

#[cfg(not(feature = "otel"))]
mod absent {
    use std::sync::Arc;

    use crate::config::TelemetryConfig;
    use crate::gateway::Recorder;
    use crate::types::{AttemptBegun, AttemptDone};

    /// Stands for the exporter in a build without `otel`; it has no value.
    pub(crate) enum Spans {}

    impl Spans {
        /// Never returns an exporter: in this build a configuration that enables spans is invalid.
        pub(crate) fn start(
            _: &TelemetryConfig,
            _: Option<tokio::runtime::Handle>,
        ) -> Result<Option<Arc<Self>>, String> {
            Ok(None)
        }

        pub(crate) fn close(&self) {
            match *self {}
        }
    }

    impl Recorder for Spans {
        fn begun(&self, _: AttemptBegun) {
            match *self {}
        }

        fn done(&self, _: AttemptDone) {
            match *self {}
        }
    }
}
