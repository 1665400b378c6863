//! Makes spans of the gateway's reports, with OpenTelemetry's conventions for generative AI. They contain names,
//! numbers and ids only: no text of a call and no key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;

use super::export::Client;
use crate::base::sync::lock;
use crate::config::TelemetryConfig;
use crate::gateway::{Recorder, price};
use crate::types::{AttemptBegun, AttemptDone, Outcome, RequestDone};

/// Time limit for sending the last batch when the daemon stops.
const CLOSING: Duration = Duration::from_secs(2);

/// Makes spans of the gateway's reports.
pub(crate) struct Spans {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// Attempts that have not ended.
    attempts: HashMap<i64, AttemptBegun>,
    requests: HashMap<i64, Request>,
}

/// A request that has not ended, or whose last attempt has not.
#[derive(Default)]
struct Request {
    running: usize,
    ended: Vec<(AttemptBegun, AttemptDone)>,
    over: Option<(RequestDone, SystemTime)>,
}

impl Spans {
    /// Starts the exporter, if an address to export to is configured.
    pub(crate) fn start(config: &TelemetryConfig, handle: Option<Handle>) -> Result<Option<Arc<Self>>, String> {
        let (Some(url), Some(handle)) = (&config.otlp_endpoint, handle) else { return Ok(None) };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Client(handle))
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_endpoint(url.as_str())
            .build()
            .map_err(|error| format!("telemetry.otlp_endpoint: {error}"))?;
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", "sidetone"),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            ])
            .build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        let tracer = provider.tracer("sidetone");
        Ok(Some(Arc::new(Self { provider, tracer, open: Mutex::default() })))
    }

    /// Sends the remaining spans. Blocks; the runtime of [`Spans::start`] must still run.
    pub(crate) fn close(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(CLOSING) {
            tracing::warn!(%error, "the last spans could not be exported");
        }
    }

    /// Changes an open request; if the request is complete afterwards, its spans are made.
    fn change(&self, request: i64, change: impl FnOnce(&mut HashMap<i64, AttemptBegun>, &mut Request)) {
        let complete = {
            let mut open = lock(&self.open);
            let Open { attempts, requests } = &mut *open;
            let entry = requests.entry(request).or_default();
            change(attempts, entry);
            let complete = entry.running == 0 && entry.over.is_some();
            if complete { requests.remove(&request) } else { None }
        };
        if let Some(Request { ended, over: Some((over, at)), .. }) = complete {
            self.emit(&ended, &over, at);
        }
    }

    fn emit(&self, ended: &[(AttemptBegun, AttemptDone)], over: &RequestDone, at: SystemTime) {
        let end = ended.iter().map(|(begun, done)| end_of(begun, done)).max().map_or(at, |last| last.max(at));
        let good = ended.iter().rev().find(|(_, done)| matches!(done.outcome, Outcome::Ok | Outcome::Partial));
        let mut attributes = vec![
            KeyValue::new("gen_ai.operation.name", "chat"),
            KeyValue::new("gen_ai.request.model", Arc::clone(&over.model)),
            KeyValue::new("sidetone.route", Arc::clone(&over.route)),
            KeyValue::new("sidetone.variant", Arc::clone(&over.variant)),
            KeyValue::new("sidetone.attempts", i64::from(over.attempts)),
        ];
        let mut optional = |key: &'static str, value: Option<Arc<str>>| {
            attributes.extend(value.map(|value| KeyValue::new(key, value)));
        };
        optional("gen_ai.conversation.id", over.call.as_ref().map(|call| Arc::from(call.as_str())));
        optional("sidetone.analysis", over.analysis.clone());
        optional("sidetone.key", over.key.clone());
        if let Some((begun, done)) = good {
            attributes.push(KeyValue::new("gen_ai.response.model", Arc::clone(&begun.vendor_model)));
            attributes.push(KeyValue::new("gen_ai.provider.name", begun.provider));
            attributes.extend(usage(done));
        }
        // A request that got its answer succeeded, even if some attempts failed.
        let failed = over.code.or_else(|| good.and_then(|(_, done)| done.code));
        let root = SpanBuilder::from_name(format!("chat {}", over.model))
            .with_kind(SpanKind::Internal)
            .with_start_time(time(over.at_ms))
            .with_attributes(failing(attributes, failed));
        let mut root = self.tracer.build_with_context(root, &Context::new());
        let parent = Context::new().with_remote_span_context(root.span_context().clone());
        for (begun, done) in ended {
            let span = SpanBuilder::from_name(format!("chat {}", begun.vendor_model))
                .with_kind(SpanKind::Client)
                .with_start_time(time(begun.at_ms))
                .with_attributes(attempt(begun, done));
            let mut span = self.tracer.build_with_context(span, &parent);
            if let Some(code) = done.code {
                span.set_status(Status::error(code));
            }
            span.end_with_timestamp(end_of(begun, done));
        }
        if let Some(code) = failed {
            root.set_status(Status::error(code));
        }
        root.end_with_timestamp(end);
    }
}

fn attempt(begun: &AttemptBegun, done: &AttemptDone) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("gen_ai.operation.name", "chat"),
        KeyValue::new("gen_ai.provider.name", begun.provider),
        KeyValue::new("gen_ai.request.model", Arc::clone(&begun.vendor_model)),
        KeyValue::new("sidetone.endpoint", Arc::clone(&begun.endpoint)),
        KeyValue::new("sidetone.attempt", i64::from(begun.number)),
        KeyValue::new("sidetone.why", begun.why.as_str()),
        KeyValue::new("sidetone.outcome", done.outcome.as_str()),
    ];
    attributes.extend(done.status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
    let first_token = done.first_token_us.map(|us| Duration::from_micros(us).as_secs_f64());
    attributes.extend(first_token.map(|first| KeyValue::new("gen_ai.response.time_to_first_chunk", first)));
    attributes.extend(usage(done));
    failing(attributes, done.code)
}

/// The token counts that the vendor reported; the others are left out.
fn usage(done: &AttemptDone) -> Vec<KeyValue> {
    let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
    let tokens = [
        ("gen_ai.usage.input_tokens", done.input),
        ("gen_ai.usage.output_tokens", done.output),
        ("gen_ai.usage.cache_read.input_tokens", done.cached),
        ("gen_ai.usage.cache_creation.input_tokens", done.cache_write),
    ];
    let counted = tokens.into_iter().filter_map(|(key, tokens)| Some(KeyValue::new(key, count(tokens?))));
    let cost = done.cost_pico.map(|cost| KeyValue::new("sidetone.cost_usd", price::usd(cost)));
    counted.chain(cost).collect()
}

fn failing(mut attributes: Vec<KeyValue>, code: Option<&'static str>) -> Vec<KeyValue> {
    attributes.extend(code.map(|code| KeyValue::new("error.type", code)));
    attributes
}

fn time(unix_ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0))
}

fn end_of(begun: &AttemptBegun, done: &AttemptDone) -> SystemTime {
    time(begun.at_ms) + Duration::from_micros(done.total_us)
}

impl Recorder for Spans {
    fn begun(&self, attempt: AttemptBegun) {
        self.change(attempt.request, |attempts, request| {
            request.running += 1;
            attempts.insert(attempt.id, attempt);
        });
    }

    fn done(&self, attempt: AttemptDone) {
        let request = {
            let open = lock(&self.open);
            open.attempts.get(&attempt.id).map(|begun| begun.request)
        };
        let Some(request) = request else { return };
        self.change(request, |attempts, request| {
            if let Some(begun) = attempts.remove(&attempt.id) {
                request.running -= 1;
                request.ended.push((begun, attempt));
            }
        });
    }

    fn over(&self, request: RequestDone) {
        self.change(request.id, |_, open| open.over = Some((request, SystemTime::now())));
    }
}
