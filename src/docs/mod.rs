//! The documentation: one Markdown page for each topic, compiled in. Rustdoc has the pages below this module, `sidetone
//! help TOPIC` prints them, and the daemon serves them at `/docs/`.
//!
//! Knows no command, no HTTP and nothing of the pages' subjects.

mod html;
mod markdown;
mod terminal;
mod topics;

pub use html::{index, page};
pub use terminal::render;
pub use topics::*;

#[cfg(test)]
mod tests;
