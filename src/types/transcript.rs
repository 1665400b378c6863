//! The structured transcript that travels with a request to the gateway.

use std::sync::Arc;

use super::Turn;

/// Turns in reading order, without those that have no text.
///
/// The `local` provider reads this instead of the prompt. The gateway renders it at `{{ transcript }}` in a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    pub turns: Vec<Arc<Turn>>,
}
