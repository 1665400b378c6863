//! Turns as prompts show them, unchanged from the first prompt that contained them: a part is a text that never
//! changes, so that vendors' prompt caches find it again.
//!
//! Knows no window and no later version of a turn. The text is rendered at its first use, outside the call's own task.

use std::sync::{Arc, OnceLock};

use super::digest::Digest;
use super::line;
use super::marks::Heard;
use crate::types::{Turn, TurnNo};

/// Consecutive turns in the state in which they were first shown.
#[derive(Debug, Default)]
pub(super) struct Part {
    turns: Vec<Arc<Turn>>,
    /// The speech before them, when they were first shown.
    heard: Heard,
    text: OnceLock<Arc<str>>,
}

impl Part {
    pub(super) fn new(turns: Vec<Arc<Turn>>, heard: Heard) -> Self {
        Self { turns, heard, text: OnceLock::new() }
    }

    /// The lines of the part's turns, each ending in a line feed.
    pub(super) fn text(&self) -> &Arc<str> {
        self.text.get_or_init(|| {
            let (mut text, mut heard) = (String::new(), self.heard.clone());
            for turn in &self.turns {
                line::render_next(turn, &mut heard, &mut text);
            }
            text.into()
        })
    }

    /// The first ordinal.
    pub(super) fn first(&self) -> Option<TurnNo> {
        self.turns.first().map(|turn| turn.turn)
    }

    /// The turn in the state in which this part shows it, if the part contains it.
    pub(super) fn shown(&self, turn: TurnNo) -> Option<&Arc<Turn>> {
        let at = usize::try_from(turn.checked_sub(self.first()?)?).ok()?;
        self.turns.get(at)
    }

    pub(super) fn turns(&self) -> &[Arc<Turn>] {
        &self.turns
    }
}

/// The text that a prompt shows of a call.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The digests of turns before the parts, in order.
    pub digests: Vec<Arc<Digest>>,
    /// The parts, in order.
    pub parts: Vec<Arc<Part>>,
    /// Lines with the newest versions of turns that the parts show in an older one, or of which a digest was made in an
    /// older one.
    pub corrections: String,
    /// Estimated tokens of all of it.
    pub tokens: u64,
    /// Set if later prompts begin with the same parts.
    pub stable: bool,
}

impl Shown {
    /// A single part that no other prompt shares.
    pub(super) fn once(part: Part, tokens: u64) -> Self {
        Self { parts: vec![Arc::new(part)], tokens, ..Self::default() }
    }
}
