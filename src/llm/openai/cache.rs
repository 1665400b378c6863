//! Prompt caches of vendors with OpenAI's format: which cache a model has, and how a request uses it. Sources: the
//! `openai` package's types; the migration guide of GPT-5.6; AssemblyAI's "Prompt caching".
//!
//! Up to GPT-5.5 the vendor finds the longest prefix by itself, and a key routes the requests of one call to the same
//! machine. From GPT-5.6 on, the cache finds a prefix only if it ended at a breakpoint. Without any breakpoint, the
//! vendor sets one after the whole prompt, whose end changes each time: every request would pay for writing a prefix
//! that no other request reads. So the daemon's own requests always declare that their breakpoints are explicit.

use crate::llm::json::{self, Object};
use crate::llm::{Block, Caching, ChatRequest, Marks, PromptCache, anthropic};

/// The shortest prefix that OpenAI keeps, in tokens.
const FLOOR: u64 = 1_024;
/// The shortest lifetime that a request can ask for, in both spellings.
const EXPLICIT_TTL_MS: u64 = 30 * 60_000;
const EXPLICIT_TTL: &str = "30m";

/// How a request uses a prompt cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Requests have no fields for caching.
    None,
    /// Requests have OpenAI's `prompt_cache_key`, and its breakpoints if the model has them.
    OpenAi,
    /// Requests have AssemblyAI's fields: the key for models that support it, a mark on a message for Claude models.
    AssemblyAi,
}

/// Which fields for caching a model understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    Nothing,
    Key,
    Breakpoints,
    Messages,
}

impl Dialect {
    fn spelling(self, model: &str) -> Spelling {
        match self {
            Self::None => Spelling::Nothing,
            Self::OpenAi if has_breakpoints(model) => Spelling::Breakpoints,
            Self::OpenAi => Spelling::Key,
            Self::AssemblyAi if model.starts_with("claude") => Spelling::Messages,
            Self::AssemblyAi if model.starts_with("gpt-") && !model.starts_with("gpt-oss") => Spelling::Key,
            Self::AssemblyAi if model.starts_with("kimi") => Spelling::Key,
            Self::AssemblyAi => Spelling::Nothing,
        }
    }

    pub(super) fn of(self, model: &str) -> Option<PromptCache> {
        let implicit = PromptCache { floor_tokens: FLOOR, ..PromptCache::IMPLICIT };
        match self.spelling(model) {
            Spelling::Messages => Some(anthropic::cache::of(model)),
            Spelling::Breakpoints => {
                Some(PromptCache { ttl_ms: EXPLICIT_TTL_MS, write: 1.25, marked: true, ..implicit })
            }
            // Through AssemblyAI these models get no breakpoint, so the cache never finds a growing prompt again.
            Spelling::Key if self == Self::AssemblyAi && has_breakpoints(model) => None,
            Spelling::Key => Some(implicit),
            Spelling::Nothing => None,
        }
    }

    /// Writes the fields of the request itself, except those that a variant's parameters set.
    pub(super) fn write_fields(self, object: &mut Object<'_>, model: &str, request: &ChatRequest) {
        let Some(Caching { key, .. }) = &request.caching else { return };
        let spelling = self.spelling(model);
        let is_free = |name: &str| !request.rest.contains_key(name);
        if matches!(spelling, Spelling::Key | Spelling::Breakpoints) && is_free("prompt_cache_key") {
            object.string("prompt_cache_key", key);
        }
        if spelling == Spelling::Breakpoints && is_free("prompt_cache_options") {
            let mut options = Object::new(object.key("prompt_cache_options"));
            options.string("mode", "explicit");
            options.string("ttl", EXPLICIT_TTL);
            options.end();
        }
    }

    /// Writes a message whose content is blocks: as content parts if cache marks are set on blocks for this model, else
    /// as one text, which every vendor accepts. `open` begins the message.
    pub(super) fn write_message(
        self,
        out: &mut Vec<u8>,
        blocks: &[Block],
        (model, marks): (&str, Marks),
        open: impl for<'a> Fn(&'a mut Vec<u8>) -> Object<'a>,
    ) {
        match self.spelling(model) {
            Spelling::Breakpoints => {
                let mut object = open(out);
                write_parts(object.key("content"), blocks, |object, position| {
                    if marks.at(position) {
                        object.key("prompt_cache_breakpoint").extend_from_slice(br#"{"mode":"explicit"}"#);
                    }
                });
                object.end();
            }
            // The mark is on a whole message, so a message ends at each mark.
            Spelling::Messages => {
                let mut from = 0;
                while from < blocks.len() {
                    let end = (from..blocks.len()).find(|at| marks.at(*at));
                    let until = end.map_or(blocks.len(), |end| end + 1);
                    if from > 0 {
                        out.push(b',');
                    }
                    let mut object = open(out);
                    write_parts(object.key("content"), &blocks[from..until], |_, _| {});
                    if end.is_some() {
                        object.key("cache_control").extend_from_slice(anthropic::cache::MARK);
                    }
                    object.end();
                    from = until;
                }
            }
            Spelling::Nothing | Spelling::Key => {
                let mut object = open(out);
                json::segments(object.key("content"), blocks.iter().map(|block| &block.text));
                object.end();
            }
        }
    }
}

/// Writes blocks as text parts; `mark` adds members to the part at a position.
fn write_parts(out: &mut Vec<u8>, blocks: &[Block], mark: impl Fn(&mut Object<'_>, usize)) {
    json::list(out, blocks.iter().enumerate(), |out, (position, block)| {
        let mut part = Object::new(out);
        part.string("type", "text");
        json::segments(part.key("text"), [&block.text]);
        mark(&mut part, position);
        part.end();
    });
}

/// Returns true from GPT-5.6 on.
fn has_breakpoints(model: &str) -> bool {
    let Some(version) = model.strip_prefix("gpt-") else { return false };
    let version = version.split('-').next().unwrap_or_default();
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    matches!((major.parse::<u32>(), minor.parse::<u32>()), (Ok(major), Ok(minor)) if (major, minor) >= (5, 6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breakpoints_are_known_from_gpt_5_6_on() {
        for model in ["gpt-5.6-luna", "gpt-5.10", "gpt-6-sol", "gpt-6.1"] {
            assert!(has_breakpoints(model), "{model}");
        }
        for model in ["gpt-5", "gpt-5-mini", "gpt-5.5", "gpt-4.1-mini", "gpt-oss-120b", "o3", "chatgpt-5.6", "gpt-4o"] {
            assert!(!has_breakpoints(model), "{model}");
        }
    }

    #[test]
    fn cache_rules_are_those_of_the_model_behind_a_gateway() {
        let floor = |dialect: Dialect, model| dialect.of(model).map(|cache| (cache.floor_tokens, cache.marked));
        assert_eq!(floor(Dialect::OpenAi, "gpt-5-mini"), Some((1_024, false)));
        assert_eq!(floor(Dialect::OpenAi, "gpt-5.6-terra"), Some((1_024, true)));
        assert_eq!(floor(Dialect::AssemblyAi, "claude-haiku-4-5-20251001"), Some((4_096, true)));
        assert_eq!(floor(Dialect::AssemblyAi, "gpt-5.1"), Some((1_024, false)));
        assert_eq!(floor(Dialect::AssemblyAi, "gpt-5.6-luna"), None);
        assert_eq!(floor(Dialect::AssemblyAi, "qwen3.5-4b-32k-fast"), None);
        assert_eq!(floor(Dialect::None, "gpt-5.6-luna"), None);
    }
}
