//! Transport: the gateway's HTTP requests to its endpoints, their authentication, and the framing of streams.
//!
//! Knows no model, no candidate and no meaning of an answer: it sends what a vendor's encoder wrote to a destination,
//! and returns the response. A vendor names its [`AuthScheme`](crate::llm::AuthScheme) and its
//! [`Framing`](crate::llm::Framing); this module implements them.

pub mod auth;
pub(in crate::gateway) mod client;
pub(in crate::gateway) mod destination;
pub mod framing;
