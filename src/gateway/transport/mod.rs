//! Transport: the gateway's HTTP requests to its endpoints.
//!
//! Knows no model, no candidate and no meaning of an answer: it sends what a vendor's encoder wrote to a destination, and
//! hands back the response.

pub(in crate::gateway) mod client;
pub(in crate::gateway) mod destination;
