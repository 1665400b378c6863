//! Learns how a model counts tokens, from the counts that its vendor reports for prompts.
//!
//! Knows no request's outcome: the caller reports the answers that count.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::base::tokens::Ratio;
use crate::llm::{ChatRequest, tokens};

/// The first prompts of a model; the ratio is learned from all of them.
const FIRST: u32 = 16;
/// After the first prompts, the ratio is learned from one prompt in this many, because an estimate takes a pass over
/// the prompt's text.
const EVERY: u32 = 16;

/// The token ratio of one model.
#[derive(Debug)]
pub(super) struct TokenRatio {
    per_mille: AtomicU32,
    /// Number of prompts so far from which the ratio could be learned; wraps.
    prompts: AtomicU32,
}

impl Default for TokenRatio {
    fn default() -> Self {
        Self { per_mille: AtomicU32::new(Ratio::default().per_mille()), prompts: AtomicU32::new(0) }
    }
}

impl TokenRatio {
    pub(super) fn current(&self) -> Ratio {
        Ratio::from_per_mille(self.per_mille.load(Ordering::Relaxed))
    }

    /// Estimated tokens of a prompt that is about to be sent, if the ratio is to be learned from it.
    pub(super) fn sample(&self, request: &ChatRequest) -> Option<u64> {
        if !tokens::is_text(request) {
            return None;
        }
        let number = self.prompts.fetch_add(1, Ordering::Relaxed);
        (number < FIRST || number.is_multiple_of(EVERY)).then(|| tokens::prompt(request))
    }

    /// Corrects the ratio: the vendor counted `reported` tokens in a prompt with `estimated` tokens.
    pub(super) fn learn(&self, estimated: u64, reported: u64) {
        let after = |per_mille| Some(Ratio::from_per_mille(per_mille).after(estimated, reported).per_mille());
        // The update always gives a value.
        let _ = self.per_mille.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::{Content, Message, Role};

    fn request() -> ChatRequest {
        ChatRequest { messages: vec![Message::text(Role::User, "one two ".repeat(500))], ..ChatRequest::default() }
    }

    #[test]
    fn first_prompts_are_all_learned_from_then_few() {
        let ratio = TokenRatio::default();
        let sampled = (0..FIRST + 3 * EVERY).filter(|_| ratio.sample(&request()).is_some()).count();
        assert_eq!(sampled, (FIRST + 3) as usize);
        let image = serde_json::json!({"type":"image_url","image_url":{"url":"https://x/y.png"}});
        let mut with_image = request();
        with_image.messages[0].content = Content::Parts(vec![image]);
        assert_eq!(TokenRatio::default().sample(&with_image), None);
    }

    #[test]
    fn reported_counts_change_the_ratio() {
        let ratio = TokenRatio::default();
        let estimated = ratio.sample(&request()).expect("the first");
        ratio.learn(estimated, 2 * estimated);
        assert_eq!(ratio.current().per_mille(), 2_000);
        ratio.learn(estimated, 0);
        assert!(ratio.current().per_mille() < 2_000);
    }
}
