//! Claude's prompt cache: which prefixes it keeps for which model, and how a prefix is marked. Sources: the
//! documentation's "Prompt caching"; for the newest models, pages that quote it.

use super::blocks::Blocks;
use crate::llm::json::{self, Object};
use crate::llm::{Block, Marks, PromptCache};

/// A marked prefix is kept for five minutes after each use.
const TTL_MS: u64 = 5 * 60_000;
/// The mark, as it is written in a content block, a message or a request.
pub(in crate::llm) const MARK: &[u8] = br#"{"type":"ephemeral"}"#;
/// Shortest prefix that is kept, in tokens, by a part of the model's name; the first match is used. For Sonnet 4.6 the
/// documentation says 1,024, but users measured 2,048.
const FLOORS: &[(&str, u64)] = &[
    ("haiku-4", 4_096),
    ("opus-4-5", 4_096),
    ("opus-4-6", 4_096),
    ("opus-4-7", 2_048),
    ("sonnet-4-6", 2_048),
    ("opus-5", 512),
    ("fable-5", 512),
    ("mythos-5", 512),
];
/// Shortest prefix that all other models keep, in tokens.
const FLOOR: u64 = 1_024;

/// The prompt cache of a Claude model.
pub(in crate::llm) fn of(model: &str) -> PromptCache {
    let model = model.replace('.', "-");
    let floor_tokens = FLOORS.iter().find(|(part, _)| model.contains(part)).map_or(FLOOR, |(_, floor)| *floor);
    PromptCache { floor_tokens, ttl_ms: TTL_MS, write: 1.25, read: 0.1, marked: true }
}

/// Writes blocks of text, with a mark on the blocks that `marks` names. A blank block is left out, because the API
/// refuses it.
pub(super) fn write(blocks: &mut Blocks<'_>, texts: &[Block], marks: Marks) {
    for (position, block) in texts.iter().enumerate() {
        if block.text.trim().is_empty() {
            continue;
        }
        let mut object = Object::new(blocks.next());
        object.string("type", "text");
        json::segments(object.key("text"), [&block.text]);
        if marks.at(position) {
            object.key("cache_control").extend_from_slice(MARK);
        }
        object.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimum_prefix_depends_on_the_model() {
        for (model, floor) in [
            ("claude-haiku-4-5-20251001", 4_096),
            ("claude-opus-4-6", 4_096),
            ("claude-opus-4.7", 2_048),
            ("claude-opus-4-8", 1_024),
            ("claude-sonnet-4-6", 2_048),
            ("claude-sonnet-5", 1_024),
            ("claude-opus-5-5", 512),
        ] {
            assert_eq!(of(model).floor_tokens, floor, "{model}");
        }
    }
}
