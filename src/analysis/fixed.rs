//! How long the prompts of an analysis are without anything of a call.
//!
//! Knows no call and no model.

use super::{Analysis, Form, layout};
use crate::context::tokens::estimate;

impl Analysis {
    /// Estimated tokens of the text that each of its prompts has: the system text and the instructions, or the messages of
    /// its own. 0 if it asks no model.
    pub fn fixed_tokens(&self) -> u64 {
        let Ok(prompt) = self.prompt(None) else { return 0 };
        let own = prompt.sources().map(|source| estimate(source.trim())).sum::<u64>();
        if !prompt.bundles() {
            return own;
        }
        let lists = [Form::Operations, Form::Whole].map(|form| estimate(self.list_instructions(form)));
        own + estimate(layout::SYSTEM) + lists.into_iter().max().unwrap_or(0)
    }
}
