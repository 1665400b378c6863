//! The canonical request: OpenAI's chat completions, typed where the gateway acts on it, the rest kept as it came.
//!
//! Does not know which vendor will get it, nor how a body spells it: that is [`wire`]'s.

mod wire;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{RequestError, Text, calls};
use crate::types::JsonMap;

/// A request for a completion. The model is not in it: that is the gateway's to choose.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatRequest {
    /// The conversation.
    pub messages: Vec<Message>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// Most tokens to generate (`max_completion_tokens`, or the older `max_tokens`).
    pub max_tokens: Option<u64>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// How many answers; absent = 1.
    pub n: Option<u32>,
    /// For vendors that can be made repeatable.
    pub seed: Option<i64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// What the model may call.
    pub tools: Vec<Tool>,
    /// Whether and what it must call.
    pub tool_choice: Option<ToolChoice>,
    /// Whether several calls may come at once.
    pub parallel_tool_calls: Option<bool>,
    /// The form of the answer.
    pub response_format: Option<ResponseFormat>,
    /// `minimal`, `low`, `medium`, `high`, …, as the vendor spells them.
    pub reasoning_effort: Option<String>,
    /// The end user, for the vendor's abuse detection and for sticky variants.
    pub user: Option<String>,
    /// Whether the answer is to come in pieces.
    pub stream: bool,
    /// Whether a streamed answer ends with its usage.
    pub include_usage: bool,
    /// All other fields, as they came.
    pub rest: JsonMap,
}

/// Who speaks in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The operator, in the older spelling.
    System,
    /// The operator.
    Developer,
    /// The one who asks.
    #[default]
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// As OpenAI spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    /// Whether it carries instructions of the operator.
    pub fn instructs(self) -> bool {
        matches!(self, Self::System | Self::Developer)
    }
}

/// What a message says.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Content {
    /// Nothing (an assistant that only calls tools).
    #[default]
    None,
    /// Text.
    Text(Text),
    /// Content parts, as they came: text, images, audio, refusals.
    Parts(Vec<Value>),
}

impl Content {
    /// All its text, parts joined by line breaks; other parts are left out.
    pub fn plain(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Text(text) => text.to_string(),
            Self::Parts(parts) => {
                let texts: Vec<&str> = parts.iter().filter_map(|part| part.get("text")?.as_str()).collect();
                texts.join("\n")
            }
        }
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::None => true,
            Self::Text(text) => text.is_empty(),
            Self::Parts(parts) => parts.is_empty(),
        }
    }
}

/// One message of the conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Content,
    /// The speaker's name, where there are several in one role.
    pub name: Option<String>,
    /// What the assistant called.
    pub tool_calls: Vec<ToolCall>,
    /// Which call a tool's message answers.
    pub tool_call_id: Option<String>,
    /// The assistant's refusal.
    pub refusal: Option<String>,
    /// All other fields, as they came.
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
    /// Names the call; its result repeats it.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments: JSON, as the model wrote it.
    pub arguments: String,
    /// All other fields of the call, as they came (a vendor's opaque signatures among them).
    pub rest: JsonMap,
}

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub enum Tool {
    /// A function of the caller's.
    Function(Function),
    /// A kind that only its own vendor knows, as it came.
    Other(Value),
}

/// A function that the model may call.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    #[serde(default)]
    pub description: Option<String>,
    /// JSON schema of its arguments.
    #[serde(default)]
    pub parameters: Option<Value>,
    /// Whether arguments must follow the schema strictly.
    #[serde(default)]
    pub strict: Option<bool>,
}

/// Whether and what the model must call.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolChoice {
    /// Nothing.
    None,
    /// As it likes.
    Auto,
    /// Something.
    Required,
    /// This function.
    Named(String),
    /// A form that only OpenAI's kind knows, as it came.
    Other(Value),
}

/// The form of the answer.
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
        /// The schema.
        schema: Arc<Value>,
        /// Whether the vendor's strict mode was asked for.
        strict: bool,
    },
}

impl ChatRequest {
    /// Reads a request body; gives the request and the `model` that it names.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn from_json(body: &[u8]) -> Result<(Self, Option<String>), RequestError> {
        wire::read(body)
    }

    /// Whether the answer is to be JSON.
    pub fn wants_json(&self) -> bool {
        matches!(self.response_format, Some(ResponseFormat::JsonObject | ResponseFormat::JsonSchema { .. }))
    }

    /// Checks what every vendor would refuse.
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

    /// Lays a variant's parameters over the request: they win over what the caller sent, so that an arm is what its
    /// configuration says whoever asks.
    ///
    /// # Errors
    /// The first parameter of a wrong type.
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
