//! Sidetone: receives streaming speech-to-text over WebSocket, and sends out insights of LLMs.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod analysis;
pub mod api;
pub mod app;
pub mod base;
pub mod call;
pub mod cli;
pub mod config;
pub mod context;
pub mod docs;
pub mod evaluation;
pub mod gateway;
pub mod hub;
pub mod ingest;
pub mod journal;
pub mod keys;
pub mod ledger;
pub mod llm;
pub mod placement;
pub mod protocol;
pub mod recording;
pub mod rules;
pub mod session;
pub mod sink;
pub mod standin;
pub mod stt;
pub mod transcript;
pub mod turns;
pub mod types;
