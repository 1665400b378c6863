//! The catalogue: which models and routes can be asked. It has the configuration, names, variants, endpoints and their
//! models, capabilities, prompt caches, and vendors' own lists.
//!
//! Knows no request in progress and no attempt.

pub(in crate::gateway) mod capabilities;
pub mod config;
pub(in crate::gateway) mod discovery;
pub(in crate::gateway) mod endpoint;
mod listing;
pub(in crate::gateway) mod model_list;
pub(in crate::gateway) mod names;
mod nearest;
pub(in crate::gateway) mod prompt_cache;
pub(in crate::gateway) mod resolved;
mod token_ratio;
mod variant;
