//! The canonical request: OpenAI's chat completions, typed where the gateway uses a field; all other fields are kept
//! unchanged.
//!
//! Does not know which vendor will receive it, nor how a body spells it: that is the job of [`wire`].

mod wire;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Block, Caching, RequestError, Text, calls};
use crate::types::JsonMap;

/// A request for a completion. It does not contain the model, which the gateway chooses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatRequest {
    /// The conversation.
    pub messages: Vec<Message>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// Maximum number of tokens to generate (`max_completion_tokens`, or the older `max_tokens`).
    pub max_tokens: Option<u64>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// Number of answers; `None` means 1.
    pub n: Option<u32>,
    /// Seed, for vendors that can repeat answers.
    pub seed: Option<i64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// Tools that the model may call.
    pub tools: Vec<Tool>,
    /// Determines if the model must call a tool, and which one.
    pub tool_choice: Option<ToolChoice>,
    /// Allows or forbids several tool calls at once; `None` leaves it to the vendor.
    pub parallel_tool_calls: Option<bool>,
    /// Format of the answer.
    pub response_format: Option<ResponseFormat>,
    /// `minimal`, `low`, `medium`, `high`, …, as the vendor spells them.
    pub reasoning_effort: Option<String>,
    /// The end user, for the vendor's abuse detection and for sticky variants.
    pub user: Option<String>,
    /// Set if the answer is to be streamed.
    pub stream: bool,
    /// Set if a streamed answer ends with its usage.
    pub include_usage: bool,
    /// Set by the daemon's own requests, many of which share a prefix.
    pub caching: Option<Caching>,
    /// All other fields, unchanged.
    pub rest: JsonMap,
}

/// The author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The operator, in the older spelling.
    System,
    /// The operator.
    Developer,
    /// The end user.
    #[default]
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// OpenAI's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    /// Returns true if messages of this role carry instructions of the operator.
    pub fn instructs(self) -> bool {
        matches!(self, Self::System | Self::Developer)
    }
}

/// Content of a message.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Content {
    /// Nothing (an assistant that only calls tools).
    #[default]
    None,
    Text(Text),
    /// Texts whose beginning other requests share. Only the daemon's own requests have them.
    Blocks(Vec<Block>),
    /// Content parts, unchanged: text, images, audio, refusals.
    Parts(Vec<Value>),
}

impl Content {
    /// All of its text, with parts joined by line breaks; parts without text are left out.
    pub fn plain(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Text(_) | Self::Blocks(_) => self.segments().map(|segment| &**segment).collect(),
            Self::Parts(parts) => {
                let texts: Vec<&str> = parts.iter().filter_map(|part| part.get("text")?.as_str()).collect();
                texts.join("\n")
            }
        }
    }

    /// Returns true if there is no content.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::None => true,
            Self::Text(text) => text.is_empty(),
            Self::Blocks(blocks) => blocks.iter().all(|block| block.text.is_empty()),
            Self::Parts(parts) => parts.is_empty(),
        }
    }

    /// The segments of a text, or of all blocks; none of content parts.
    pub fn segments(&self) -> impl Iterator<Item = &Arc<str>> {
        let (segments, blocks): (&[Arc<str>], &[Block]) = match self {
            Self::Text(text) => (text.segments(), &[]),
            Self::Blocks(blocks) => (&[], blocks),
            Self::None | Self::Parts(_) => (&[], &[]),
        };
        segments.iter().chain(blocks.iter().map(|block| &block.text))
    }
}

/// One message of the conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    pub role: Role,
    pub content: Content,
    /// The author's name, if there are several with one role.
    pub name: Option<String>,
    /// Tool calls of the assistant.
    pub tool_calls: Vec<ToolCall>,
    /// The id of the call that a tool's message answers.
    pub tool_call_id: Option<String>,
    /// The assistant's refusal.
    pub refusal: Option<String>,
    /// All other fields, unchanged.
    pub rest: JsonMap,
}

impl Message {
    /// A message of plain text.
    pub fn text(role: Role, text: impl Into<Text>) -> Self {
        Self { role, content: Content::Text(text.into()), ..Self::default() }
    }
}

/// A call of a tool by the model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolCall {
    /// Identifies the call; its result repeats it.
    pub id: String,
    /// Name of the function.
    pub name: String,
    /// Arguments: JSON, as the model wrote it.
    pub arguments: String,
    /// All other fields of the call, unchanged (including vendors' opaque signatures).
    pub rest: JsonMap,
}

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub enum Tool {
    /// A function of the caller.
    Function(Function),
    /// A kind that only its own vendor knows, unchanged.
    Other(Value),
}

/// A function that the model may call.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Function {
    pub name: String,
    /// What the function does, for the model.
    #[serde(default)]
    pub description: Option<String>,
    /// JSON schema of its arguments.
    #[serde(default)]
    pub parameters: Option<Value>,
    /// Set if arguments must follow the schema strictly.
    #[serde(default)]
    pub strict: Option<bool>,
}

/// Determines if the model must call a tool, and which one.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolChoice {
    /// No tool.
    None,
    /// The model decides.
    Auto,
    /// At least one tool.
    Required,
    /// The model must call the function with this name.
    Named(String),
    /// A form that only OpenAI-compatible vendors know, unchanged.
    Other(Value),
}

/// Format of the answer.
#[derive(Debug, Clone, PartialEq)]
pub enum ResponseFormat {
    /// Free text.
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that is valid under a schema.
    JsonSchema {
        /// Names the schema for the vendor: `[A-Za-z0-9_-]{1,64}`.
        name: String,
        schema: Arc<Value>,
        /// Set if the vendor's strict mode was requested.
        strict: bool,
    },
}

impl ChatRequest {
    /// Reads a request body. Returns the request and the `model` that it names.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn from_json(body: &[u8]) -> Result<(Self, Option<String>), RequestError> {
        wire::read(body)
    }

    /// Returns true if the answer must be JSON.
    pub fn wants_json(&self) -> bool {
        matches!(self.response_format, Some(ResponseFormat::JsonObject | ResponseFormat::JsonSchema { .. }))
    }

    /// Checks for values that every vendor would refuse.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), RequestError> {
        if self.messages.is_empty() {
            return Err(RequestError::field("messages", "expected at least one message"));
        }
        let ranges = [
            ("temperature", self.temperature, 0.0..=2.0),
            ("top_p", self.top_p, 0.0..=1.0),
            ("presence_penalty", self.presence_penalty, -2.0..=2.0),
            ("frequency_penalty", self.frequency_penalty, -2.0..=2.0),
        ];
        for (name, value, range) in ranges {
            if let Some(value) = value.filter(|value| !range.contains(value)) {
                let message = format!("expected a number from {} to {}, found {value}", range.start(), range.end());
                return Err(RequestError::field(name, message));
            }
        }
        if self.max_tokens == Some(0) {
            return Err(RequestError::field("max_tokens", "expected a number of 1 or more, found 0"));
        }
        if let Some(n) = self.n.filter(|n| !(1..=128).contains(n)) {
            return Err(RequestError::field("n", format!("expected a number from 1 to 128, found {n}")));
        }
        for (position, message) in self.messages.iter().enumerate() {
            let speaks = matches!(message.role, Role::System | Role::Developer | Role::User);
            if speaks && matches!(message.content, Content::None) {
                let param = format!("messages[{position}].content");
                return Err(RequestError::field(param, "missing; expected a string or a list of content parts"));
            }
            if message.role == Role::Tool && message.tool_call_id.is_none() {
                let param = format!("messages[{position}].tool_call_id");
                return Err(RequestError::field(param, "missing; a tool's message names the call that it answers"));
            }
        }
        if let Some((position, id)) = calls::stray_result(&self.messages) {
            let param = format!("messages[{position}].tool_call_id");
            let id: String = id.chars().take(100).collect();
            let message = format!("no assistant message before it has a tool call {id:?}");
            return Err(RequestError::field(param, message));
        }
        if let Some(ToolChoice::Named(name)) = &self.tool_choice {
            let known =
                self.tools.iter().any(|tool| matches!(tool, Tool::Function(function) if function.name == *name));
            if !known {
                return Err(RequestError::field("tool_choice", format!("no tool {name:?} among tools")));
            }
        }
        Ok(())
    }

    /// Overrides fields with a variant's parameters. They take precedence over the caller's values, so that a variant
    /// behaves as configured for every caller.
    ///
    /// # Errors
    /// The first parameter that has a wrong type.
    pub fn apply_params(&mut self, params: &JsonMap) -> Result<(), RequestError> {
        if params.is_empty() {
            return Ok(());
        }
        let given = wire::read_params(params)?;
        let given_keys = |name: &str| params.contains_key(name);
        macro_rules! take {
            ($($field:ident: $($key:literal)|+;)*) => {
                $(if $(given_keys($key))||+ { self.$field = given.$field; })*
            };
        }
        take! {
            temperature: "temperature";
            top_p: "top_p";
            max_tokens: "max_tokens" | "max_completion_tokens";
            stop: "stop";
            n: "n";
            seed: "seed";
            presence_penalty: "presence_penalty";
            frequency_penalty: "frequency_penalty";
            tools: "tools";
            tool_choice: "tool_choice";
            parallel_tool_calls: "parallel_tool_calls";
            response_format: "response_format";
            reasoning_effort: "reasoning_effort" | "reasoning";
            user: "user";
        }
        self.rest.extend(given.rest);
        Ok(())
    }
}
