//! The canonical answer: OpenAI's chat completion, complete or in pieces.
//!
//! Does not know which vendor gave it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ToolCall;
use crate::types::attempt::MAX_TOKENS;
use crate::types::{JsonMap, TokenUsage};

/// An answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatResponse {
    /// The vendor's id of the answer.
    pub id: String,
    /// Unix seconds, if the vendor reports it.
    pub created: Option<u64>,
    /// The vendor's name for the model that answered.
    pub model: String,
    /// The answers, by index.
    pub choices: Vec<Choice>,
    pub usage: Usage,
    /// Other fields that an OpenAI client may know (`system_fingerprint`, `service_tier`).
    pub rest: JsonMap,
}

/// One of the answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice {
    /// Index of the answer, from 0.
    pub index: u32,
    pub text: Option<String>,
    /// Thinking, if the vendor shows it.
    pub reasoning: Option<String>,
    /// The refusal, in place of an answer.
    pub refusal: Option<String>,
    pub tool_calls: Vec<ToolCall>,
    /// Why the answer ended; `None` if it has not ended.
    pub finish: Option<Finish>,
    /// Token probabilities, unchanged.
    pub logprobs: Option<Value>,
    /// All other fields of the message, unchanged.
    pub rest: JsonMap,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The answer was complete, or a stop string was reached.
    Stop,
    /// The token limit was reached.
    Length,
    /// The model calls tools.
    ToolCalls,
    /// The vendor withheld it.
    ContentFilter,
}

impl Finish {
    /// OpenAI's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
        }
    }

    /// Reads the spellings of OpenAI and other vendors, in lower case.
    pub(crate) fn parse(reason: &str) -> Option<Self> {
        Some(match reason {
            "stop" | "end_turn" | "stop_sequence" | "stop_criteria_met" | "pause_turn" | "eos" | "eos_token"
            | "endoftext" | "complete" | "finished" => Self::Stop,
            "length" | "max_tokens" | "model_length" | "model_context_window_exceeded" => Self::Length,
            "tool_calls" | "function_call" | "tool_use" | "tool_call" => Self::ToolCalls,
            "content_filter"
            | "content_filtered"
            | "guardrail_intervened"
            | "refusal"
            | "safety"
            | "sensitive"
            | "recitation"
            | "blocklist"
            | "prohibited_content"
            | "spii"
            | "language"
            | "model_armor"
            | "image_safety"
            | "image_prohibited_content"
            | "image_recitation" => Self::ContentFilter,
            _ => return None,
        })
    }
}

/// Tokens as the vendor counted them. `None` if unknown, never 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Prompt tokens, including those read from and written to a cache.
    pub input: Option<u64>,
    /// Tokens of `input` that were read from the vendor's cache.
    pub cached: Option<u64>,
    /// Tokens of `input` that were written to the vendor's cache.
    pub cache_write: Option<u64>,
    /// Completion tokens, including reasoning.
    pub output: Option<u64>,
    /// Tokens of `output` that were reasoning.
    pub reasoning: Option<u64>,
}

impl Usage {
    /// Replaces counts over [`MAX_TOKENS`] by unknown. Returns the number of counts replaced.
    pub fn plausible(self) -> (Self, u64) {
        let mut implausible = 0;
        let mut known = |tokens: Option<u64>| {
            let known = tokens.filter(|tokens| *tokens <= MAX_TOKENS);
            implausible += u64::from(known != tokens);
            known
        };
        let usage = Self {
            input: known(self.input),
            cached: known(self.cached),
            cache_write: known(self.cache_write),
            output: known(self.output),
            reasoning: known(self.reasoning),
        };
        (usage, implausible)
    }

    /// Replaces every count that `later` has: vendors report cumulative counts.
    pub fn update(&mut self, later: Self) {
        self.input = later.input.or(self.input);
        self.cached = later.cached.or(self.cached);
        self.cache_write = later.cache_write.or(self.cache_write);
        self.output = later.output.or(self.output);
        self.reasoning = later.reasoning.or(self.reasoning);
    }

    /// Adds the tokens of another request. If only one side knows a count, that count is kept.
    pub fn add(&mut self, other: Self) {
        let sum = |ours: Option<u64>, theirs: Option<u64>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => Some(ours.saturating_add(theirs)),
            (ours, theirs) => ours.or(theirs),
        };
        self.input = sum(self.input, other.input);
        self.cached = sum(self.cached, other.cached);
        self.cache_write = sum(self.cache_write, other.cache_write);
        self.output = sum(self.output, other.output);
        self.reasoning = sum(self.reasoning, other.reasoning);
    }

    /// Returns true if no count is known.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Usage> for TokenUsage {
    fn from(usage: Usage) -> Self {
        Self { input: usage.input, cached: usage.cached, output: usage.output }
    }
}

/// A piece of a streamed answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// The stream began; there is no content yet.
    Start {
        /// The vendor's id of the answer.
        id: String,
        /// The vendor's name for the model.
        model: String,
        /// Unix seconds, if the vendor reports it.
        created: Option<u64>,
    },
    /// A further part of the text.
    Text {
        /// Index of the answer.
        choice: u32,
        text: String,
    },
    /// A further part of the thinking.
    Reasoning {
        /// Index of the answer.
        choice: u32,
        text: String,
    },
    /// A further part of a refusal.
    Refusal {
        /// Index of the answer.
        choice: u32,
        text: String,
    },
    /// A further part of a tool call.
    ToolCall {
        /// Index of the answer.
        choice: u32,
        /// Number of the call within its answer, from 0.
        index: u32,
        /// Id of the call; only in its first piece.
        id: Option<String>,
        /// Name of the function, in the call's first piece. Later pieces have further parts of it if the vendor sends
        /// it in parts.
        name: Option<String>,
        /// A further part of the arguments.
        arguments: String,
    },
    /// A complete block of thinking, signed by the vendor: the client must send it back with the calls that follow it.
    Thinking {
        /// Index of the answer.
        choice: u32,
        /// The vendor's object, unchanged.
        block: Value,
    },
    /// Token probabilities, unchanged.
    Logprobs {
        /// Index of the answer.
        choice: u32,
        /// OpenAI's `logprobs` object.
        value: Value,
    },
    /// An answer ended.
    Finish {
        /// Index of the answer.
        choice: u32,
        /// Why the answer ended.
        reason: Finish,
    },
    /// The vendor ended an answer for an unknown reason. This alone does not make the answer complete.
    UnknownFinish {
        /// Index of the answer.
        choice: u32,
        /// The vendor's finish reason, shortened.
        word: String,
    },
    /// Tokens so far.
    Usage(Usage),
    /// The vendor's end mark of the stream.
    Done,
}

impl Piece {
    /// Returns true if the piece is part of the answer itself. After such a piece, no other vendor can take over
    /// unnoticed.
    pub fn is_semantic(&self) -> bool {
        match self {
            Self::Text { text, .. } | Self::Reasoning { text, .. } | Self::Refusal { text, .. } => !text.is_empty(),
            Self::ToolCall { .. } => true,
            // An end without content before it may turn out not to be one.
            Self::Finish { .. } | Self::UnknownFinish { .. } | Self::Done => false,
            Self::Start { .. } | Self::Thinking { .. } | Self::Usage(_) | Self::Logprobs { .. } => false,
        }
    }
}

impl ChatResponse {
    /// Adds a piece to the answer so far.
    pub fn absorb(&mut self, piece: &Piece) {
        match piece {
            Piece::Start { id, model, created } => {
                if self.id.is_empty() {
                    self.id.clone_from(id);
                }
                if self.model.is_empty() {
                    self.model.clone_from(model);
                }
                self.created = self.created.or(*created);
            }
            Piece::Text { choice, text } => self.choice(*choice).text.get_or_insert_default().push_str(text),
            Piece::Reasoning { choice, text } => {
                self.choice(*choice).reasoning.get_or_insert_default().push_str(text);
            }
            Piece::Refusal { choice, text } => self.choice(*choice).refusal.get_or_insert_default().push_str(text),
            Piece::ToolCall { choice, index, id, name, arguments } => {
                let calls = &mut self.choice(*choice).tool_calls;
                let index = (*index as usize).min(MAX_TOOL_CALLS);
                if calls.len() <= index {
                    calls.resize_with(index + 1, ToolCall::default);
                }
                let call = &mut calls[index];
                if let Some(id) = id {
                    call.id.clone_from(id);
                }
                if let Some(name) = name {
                    call.name.push_str(name);
                }
                call.arguments.push_str(arguments);
            }
            Piece::Thinking { choice, block } => {
                let blocks =
                    self.choice(*choice).rest.entry(THINKING_BLOCKS).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(blocks) = blocks {
                    blocks.push(block.clone());
                }
            }
            Piece::Logprobs { choice, value } => absorb_logprobs(&mut self.choice(*choice).logprobs, value),
            Piece::Finish { choice, reason } => self.choice(*choice).finish = Some(*reason),
            Piece::Usage(usage) => self.usage.update(*usage),
            Piece::UnknownFinish { .. } | Piece::Done => {}
        }
    }

    /// The text of the first answer.
    pub fn text(&self) -> &str {
        self.choices.first().and_then(|choice| choice.text.as_deref()).unwrap_or_default()
    }

    fn choice(&mut self, index: u32) -> &mut Choice {
        if let Some(position) = self.choices.iter().position(|choice| choice.index == index) {
            return &mut self.choices[position];
        }
        let position = self.choices.partition_point(|choice| choice.index < index);
        self.choices.insert(position, Choice { index, ..Choice::default() });
        &mut self.choices[position]
    }
}

/// Describes the error of a parser without the text in which it was found.
pub(super) fn describe(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    if error.line() == 0 {
        // An error of `json::read` itself, which names a limit.
        return error.to_string();
    }
    let what = match error.classify() {
        Category::Io | Category::Eof => "it is cut off",
        Category::Syntax => "it is not JSON",
        Category::Data => "a field has the wrong type",
    };
    format!("{what} (line {} column {})", error.line(), error.column())
}

/// The field of an assistant's message that holds its signed thinking. The name is LiteLLM's; clients send the field
/// back.
pub(crate) const THINKING_BLOCKS: &str = "thinking_blocks";

/// Highest index of a tool call. Bounds the memory that a vendor with absurd indexes can make us allocate.
const MAX_TOOL_CALLS: usize = 1023;

fn absorb_logprobs(ours: &mut Option<Value>, more: &Value) {
    match ours {
        None => *ours = Some(more.clone()),
        Some(ours) => {
            for list in ["content", "refusal"] {
                if let (Some(Value::Array(ours)), Some(Value::Array(more))) = (ours.get_mut(list), more.get(list)) {
                    ours.extend(more.iter().cloned());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_one_answer() {
        let mut answer = ChatResponse::default();
        for piece in [
            Piece::Start { id: "a".into(), model: "m".into(), created: Some(1) },
            Piece::Text { choice: 0, text: "Hel".into() },
            Piece::Text { choice: 0, text: "lo".into() },
            Piece::ToolCall {
                choice: 0,
                index: 1,
                id: Some("c2".into()),
                name: Some("g".into()),
                arguments: "{".into(),
            },
            Piece::ToolCall { choice: 0, index: 1, id: None, name: None, arguments: "}".into() },
            Piece::Usage(Usage { input: Some(3), ..Usage::default() }),
            Piece::Usage(Usage { output: Some(2), ..Usage::default() }),
            Piece::Finish { choice: 0, reason: Finish::ToolCalls },
        ] {
            answer.absorb(&piece);
        }
        assert_eq!(answer.text(), "Hello");
        assert_eq!(answer.choices[0].tool_calls[1].arguments, "{}");
        assert_eq!(answer.usage, Usage { input: Some(3), output: Some(2), ..Usage::default() });
        assert_eq!(answer.choices[0].finish, Some(Finish::ToolCalls));
    }
}
