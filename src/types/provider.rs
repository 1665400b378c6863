//! Names that stand in place of a vendor's endpoint and model.
//!
//! Knows no configuration: the embedded provider may also answer under the name of a route or of a model.

/// The embedded provider: its name in the configuration, and its endpoint and model in provenance. No endpoint or model
/// of a user can have this name.
pub const LOCAL: &str = "local";
/// Route, model and endpoint in the provenance of a value that is computed without a provider.
pub const COMPUTED: &str = "computed";

/// Returns true for the name of the embedded provider.
pub fn is_local(name: &str) -> bool {
    name == LOCAL
}

/// Returns true for the endpoint of a value that is computed without a provider.
pub fn is_computed(endpoint: &str) -> bool {
    endpoint == COMPUTED
}
