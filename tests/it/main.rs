//! The black-box suite: tests of the real binary over real sockets, by the wire contract alone.
//!
//! Sizes can be raised by the environment: see `support::knob`. One run of everything takes some minutes on two cores.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod adversarial_streams;
mod analyses;
mod architecture;
mod bad_input;
mod bounds;
mod budgets;
mod bundles;
mod catalogue;
mod chaos;
mod chat_extensions;
mod comparing;
mod contract;
mod crash;
mod dialects;
mod digests;
mod docs;
mod embedded;
mod first_run;
mod gateway_faults;
mod golden;
mod held;
mod hostile;
mod hostile_speech;
mod http_api;
mod ingest;
mod json_schema;
mod keys;
mod late_store;
mod lenient;
mod limits;
mod otel;
mod outage;
mod outbound_proxy;
mod prompts;
mod proxy;
mod proxy_answers;
mod record;
mod recordings;
mod reload;
mod restarts;
mod resume;
mod rules;
mod scale;
mod secrets;
mod shutdown;
mod sinks;
mod soak;
mod subscribe;
mod surrogates;
mod transcript_files;
mod transcripts;
mod upgrade;
mod usage_bill;
mod users;
mod variants;
