//! The HTTP surface: calls, health, metrics, and the upgrades to the two WebSocket paths (DESIGN 5.5).
//!
//! Knows no journal format and no analysis; every handler asks the module that owns the answer. Only `api::error` knows
//! status codes.

pub mod auth;
mod body;
mod calls;
mod chat;
pub mod config;
mod cors;
mod docs;
pub mod error;
pub mod guard;
mod health;
mod items;
pub mod models;
mod openapi;
mod pages;
mod query;
mod route;
mod routes;
mod schemas;
mod service;
mod sockets;
mod state;
mod stt;
pub mod subscribe;
mod transcripts;
mod usage;

pub use self::service::{Answered, Service};
pub use self::sockets::SessionViews;
pub use self::state::{Api, ConnectionGuard};
