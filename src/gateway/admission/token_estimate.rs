//! Upper estimate of the tokens that a request uses, made before it is sent.

use crate::llm::{ChatRequest, Content};

/// Assumed maximum length of an answer in tokens, if the request does not limit it.
const OUTPUT_TOKENS: u64 = 1024;

/// The tokens that a request uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct TokenEstimate {
    pub(in crate::gateway) input: u64,
    pub(in crate::gateway) output: u64,
}

impl TokenEstimate {
    pub(in crate::gateway) const NOTHING: Self = Self { input: 0, output: 0 };

    /// One token per three bytes of prompt, and all tokens that the answer may have.
    pub(in crate::gateway) fn of(request: &ChatRequest) -> Self {
        let bytes: usize = request
            .messages
            .iter()
            .map(|message| match &message.content {
                content @ (Content::Text(_) | Content::Blocks(_)) => {
                    content.segments().map(|segment| segment.len()).sum::<usize>()
                }
                Content::None => 0,
                Content::Parts(parts) => parts.iter().map(|part| part.to_string().len()).sum(),
            })
            .sum();
        let output = request.max_tokens.unwrap_or(OUTPUT_TOKENS).saturating_mul(u64::from(request.n.unwrap_or(1)));
        Self { input: bytes as u64 / 3 + 16, output }
    }

    pub(in crate::gateway) fn tokens(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}
