//! The structured transcript that travels with a request to the gateway.

use std::sync::Arc;

use super::Turn;

/// Turns in the order in which they are to be read. Turns without text are not in it.
///
/// The `local` provider reads this instead of the prompt; the gateway renders it where a request asks for
/// `{{ transcript }}`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    /// In reading order.
    pub turns: Vec<Arc<Turn>>,
}
