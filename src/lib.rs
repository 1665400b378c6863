//! Sidetone: streaming speech-to-text in over WebSocket, LLM insight out.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod analysis;
pub mod base;
pub mod cli;
pub mod context;
pub mod gateway;
pub mod hub;
pub mod journal;
pub mod llm;
pub mod recording;
pub mod stt;
pub mod types;
