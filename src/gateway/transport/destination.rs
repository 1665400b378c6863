//! Where the requests of one endpoint go.

use std::sync::Arc;

use http::HeaderMap;

use super::auth::Auth;

/// Address of an endpoint, and headers and authentication of every request to it.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct Destination {
    /// Identifies its connection pools: destinations with the same id share their connections.
    pub(in crate::gateway) id: u64,
    /// Base URL, without a trailing slash.
    pub(in crate::gateway) base_url: String,
    /// Headers that are added to every request.
    pub(in crate::gateway) headers: HeaderMap,
    /// Authenticates them; `None` for an endpoint that needs no key.
    pub(in crate::gateway) auth: Option<Arc<dyn Auth>>,
}
