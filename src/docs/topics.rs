//! The list of topics, and of their pictures. Both are files beside this one.
//!
//! Knows no output format.

/// One page of the documentation.
#[derive(Debug)]
pub struct Topic {
    /// Name in links and on the command line.
    pub name: &'static str,
    /// What the page is about, for lists of topics.
    pub summary: &'static str,
    /// The page as Markdown.
    pub text: &'static str,
}

/// Every key of the configuration with its default, as TOML: `config/sidetone.toml`.
pub const SIDETONE_TOML: &str = include_str!("../../config/sidetone.toml");

/// Name of [`SIDETONE_TOML`] in links, on the command line and in paths.
pub const SIDETONE_TOML_NAME: &str = "sidetone.toml";

macro_rules! pictures {
    ($($file:literal)+) => {
        /// The pictures of the pages, PNG files, by name.
        pub static PICTURES: &[(&str, &[u8])] = &[$(($file, include_bytes!($file))),+];
    };
}

pictures! {
    "analyses.png"
    "comparing.png"
    "rules.png"
}

macro_rules! topics {
    ($($name:ident, $file:literal, $summary:literal;)+) => {
        /// All topics, in the order in which they are listed.
        pub static TOPICS: &[Topic] =
            &[$(Topic { name: stringify!($name), summary: $summary, text: include_str!($file) }),+];
        $(
            #[allow(rustdoc::invalid_codeblock_attributes, reason = "the fences' attributes tell scripts/readme what to do with a block")]
            // If a link is defined twice, the first definition counts: this file points links to rustdoc's pages.
            #[doc = include_str!("rustdoc-links.txt")]
            #[doc = include_str!($file)]
            pub mod $name {}
        )+
    };
}

topics! {
    configuration, "configuration.md", "the configuration file: sections, check, reload, environment";
    feeding, "feeding.md", "sending turns: the socket, dialects, acknowledgements, reconnecting";
    subscribing, "subscribing.md", "reading calls: dashboard, socket, every field of the frames, HTTP";
    gateway, "gateway.md", "asking models: clients, vendors, failover, limits, cost";
    analyses, "analyses.md", "questions about calls: prompts, variables, schemas, triggers, evidence";
    rules, "rules.md", "alerts: words said or not said, silence, overlap, values of insights";
    proxy, "proxy.md", "in front of speech-to-text: existing clients, insights in the stream, sources";
    recordings, "recordings.md", "recording, replaying, and analysing finished calls";
    transcripts, "transcripts.md", "transcript files: captions of meetings, reports, conversion";
    comparing, "comparing.md", "comparing models, prompts and triggers on recordings; every figure and its source";
    sinks, "sinks.md", "pushing events to your systems: webhooks and websockets";
    metrics, "metrics.md", "metrics for Prometheus, alerts, traces";
    errors, "errors.md", "close codes and error codes, and when to reconnect";
    operations, "operations.md", "building, addresses, health, backup, upgrade, packages, containers";
    security, "security.md", "keys, scopes, paths, TLS";
    limits, "limits.md", "every limit with its default and its error";
}

pub fn picture(name: &str) -> Option<&'static [u8]> {
    PICTURES.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes)
}

pub fn topic(name: &str) -> Option<&'static Topic> {
    TOPICS.iter().find(|topic| topic.name == name)
}
