//! `[ingest]` and `[limits]`: when a call ends, and which sizes and numbers are allowed.

use std::time::Duration;

use toml::Value;

use crate::base::settings::{Problems, Section};
use crate::types::MAX_FRAME_BYTES;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const MIB: u64 = 1024 * 1024;

/// `[ingest]`: frames of producers, and the end of calls.
#[derive(Debug, Clone)]
pub struct IngestConfig {
    /// Analyses of a call whose producer names none; `None` = the default ones and every analysis with a section of its
    /// own.
    pub analyses: Option<Vec<String>>,
    /// A call without a connected producer completes after this time.
    pub idle_timeout: Duration,
    /// A call completes this long after its last stream ended.
    pub linger: Duration,
    /// A call with a connected producer that sends no speech completes after this time.
    pub max_silence: Duration,
    /// Largest message, bytes.
    pub max_frame_bytes: usize,
    /// Time limit of the final runs at a call's end.
    pub final_timeout: Duration,
    /// Final words whose turn the vendor does not end become a turn this long after the last of them.
    pub held: Duration,
}

impl IngestConfig {
    /// Reads the section. A value that cannot be read is reported in `problems`, and its default is used.
    pub fn read(value: Option<Value>, problems: &mut Problems) -> Self {
        let mut section = Section::new("ingest", value, problems);
        let mut millis = |key, default| section.millis(key, 0..=30 * DAY_MS).unwrap_or(Duration::from_millis(default));
        let idle_timeout = millis("idle_timeout_ms", 300_000);
        let linger = millis("linger_ms", 2_000);
        let max_silence = millis("max_silence_ms", 3_600_000);
        let final_timeout = millis("final_timeout_ms", 30_000);
        let held = millis("held_ms", 5_000);
        let max_frame_bytes = section.integer("max_frame_bytes", 1024..=64 * 1024 * 1024).unwrap_or(1024 * 1024);
        let analyses = section.strings("analyses");
        section.finish();
        let max_frame_bytes = usize::try_from(max_frame_bytes).unwrap_or(1024 * 1024);
        Self { analyses, idle_timeout, linger, max_silence, max_frame_bytes, final_timeout, held }
    }
}

/// Space reserved in a frame for everything of a turn event except text and words, bytes.
const TURN_EVENT_BYTES: usize = 24 * 1024;

/// `[limits]`. The highest allowed values keep every outgoing frame under 1 MiB.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// Maximum number of connections.
    pub connections: usize,
    /// Maximum number of connections from one address.
    pub per_address: usize,
    /// Bytes in flight over all connections: request bodies and their parsed form, responses and frames that are not
    /// read. One connection may use half of them.
    pub inflight_bytes: usize,
    /// Time limit of a request's body for each started MiB of it.
    pub body_timeout: Duration,
    /// Maximum number of open calls.
    pub open_calls: usize,
    /// Maximum number of streams of one call, including those that have ended.
    pub streams_per_call: usize,
    /// Maximum number of new calls per second, with a burst of the same number.
    pub new_calls_per_s: u32,
    /// Maximum number of subscriptions of one socket.
    pub subscriptions_per_socket: usize,
    /// Maximum number of calls named in one subscription.
    pub calls_per_subscription: usize,
    /// Maximum size of a call's `meta` as JSON, bytes.
    pub meta_bytes: usize,
    /// Maximum size of the text of one turn as JSON, bytes. The limit of its words is [`LimitsConfig::words_bytes`].
    pub turn_bytes: usize,
    /// Maximum size of a label as JSON, bytes: speaker, language, vendor's turn or session id, reason of an end.
    pub label_bytes: usize,
    /// Maximum size of an insight's value and evidence as JSON, bytes.
    pub insight_bytes: usize,
    /// Maximum number of alerts of one call.
    pub alerts_per_call: u64,
    /// Minimum time from one alert of a rule to its next one in the same call.
    pub alert_pause: Duration,
    /// What a call's LLM requests may cost, US dollars; `None` = no limit.
    pub usd_per_call: Option<f64>,
    /// What all LLM requests of a day (UTC) may cost, US dollars; `None` = no limit.
    pub usd_per_day: Option<f64>,
}

impl LimitsConfig {
    /// Reads the section. A value that cannot be read is reported in `problems`, and its default is used.
    pub fn read(value: Option<Value>, problems: &mut Problems) -> Self {
        let mut section = Section::new("limits", value, problems);
        let inflight_bytes = section.integer("inflight_bytes", 4 * MIB..=1024 * 1024 * MIB).unwrap_or(256 * MIB);
        let body_timeout = section.millis("body_timeout_ms", 100..=DAY_MS).unwrap_or(Duration::from_secs(30));
        let mut count = |key, default: u64, max: u64| {
            let number = section.integer(key, 1..=max).unwrap_or(default);
            usize::try_from(number).unwrap_or(usize::MAX)
        };
        let connections = count("connections", 20_000, 1_000_000);
        let per_address = count("per_address", 20_000, 1_000_000);
        let open_calls = count("open_calls", 20_000, 1_000_000);
        let streams_per_call = count("streams_per_call", 1_000, 100_000);
        let new_calls_per_s = count("new_calls_per_s", 5_000, 1_000_000);
        let subscriptions_per_socket = count("subscriptions_per_socket", 32, 10_000);
        let calls_per_subscription = count("calls_per_subscription", 1_000, 4_000);
        let meta_bytes = count("meta_bytes", 16 * 1024, 256 * 1024);
        let turn_bytes = count("turn_bytes", 64 * 1024, 512 * 1024);
        let label_bytes = count("label_bytes", 256, 4096);
        let insight_bytes = count("insight_bytes", 256 * 1024, 768 * 1024);
        let alerts_per_call = section.integer("alerts_per_call", 1..=100_000).unwrap_or(1_000);
        let alert_pause = section.millis("alert_pause_ms", 0..=DAY_MS).unwrap_or(Duration::from_secs(10));
        let usd_per_call = section.number("usd_per_call", 0.0..=1e6);
        let usd_per_day = section.number("usd_per_day", 0.0..=1e6);
        section.finish();
        Self {
            connections,
            per_address,
            inflight_bytes: usize::try_from(inflight_bytes).unwrap_or(usize::MAX),
            body_timeout,
            open_calls,
            streams_per_call,
            new_calls_per_s: u32::try_from(new_calls_per_s).unwrap_or(u32::MAX),
            subscriptions_per_socket,
            calls_per_subscription,
            meta_bytes,
            turn_bytes,
            label_bytes,
            insight_bytes,
            alerts_per_call,
            alert_pause,
            usd_per_call,
            usd_per_day,
        }
    }

    /// Limit for the words of one turn as JSON, bytes: 12 times `turn_bytes` (a word with its times takes about 12 times
    /// its text), or less if the frame would exceed 1 MiB.
    pub fn words_bytes(&self) -> usize {
        let room = MAX_FRAME_BYTES.saturating_sub(self.turn_bytes + TURN_EVENT_BYTES);
        self.turn_bytes.saturating_mul(12).min(room)
    }
}
