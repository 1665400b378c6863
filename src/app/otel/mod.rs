//! OpenTelemetry: a span for each request to the gateway, and a child for each HTTP call made for it. Behind the cargo
//! feature `otel`; without it this is nothing.

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

    /// There are none.
    pub(crate) enum Spans {}

    impl Spans {
        /// Never: a configuration that asks for spans does not validate in this build.
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
