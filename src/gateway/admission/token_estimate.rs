//! Upper estimate of the tokens that a request uses, made before it is sent.

use crate::base::tokens::Ratio;
use crate::llm::{ChatRequest, tokens};

/// The tokens that a request uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct TokenEstimate {
    pub(in crate::gateway) input: u64,
    pub(in crate::gateway) output: u64,
}

impl TokenEstimate {
    pub(in crate::gateway) const NOTHING: Self = Self { input: 0, output: 0 };

    /// The prompt as a model with this ratio counts it, and all tokens that the answer may have.
    pub(in crate::gateway) fn of(request: &ChatRequest, ratio: Ratio) -> Self {
        Self { input: ratio.apply(tokens::prompt(request)), output: tokens::answer(request) }
    }

    pub(in crate::gateway) fn tokens(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}
