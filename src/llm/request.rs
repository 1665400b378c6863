//! The canonical request: OpenAI's chat completions, typed where the gateway acts on it, the rest kept as it came.
//!
//! Does not know which vendor will get it.

use std::sync::Arc;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{RequestError, Text, json};
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
        match json::read::<Wire>(body) {
            Ok(wire) => wire.into_request(),
            Err(error) => Err(where_it_fails(body, &error)),
        }
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
        let wire: Wire = serde_path_to_error::deserialize(Value::Object(params.clone()))
            .map_err(|error| RequestError::read("", error.path(), error.inner()))?;
        let (given, _) = wire.into_request()?;
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

/// Reads a body that is wrong once more, this time with an eye on the path: a good one does not pay for that.
fn where_it_fails(body: &[u8], error: &serde_json::Error) -> RequestError {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, Wire>(&mut deserializer) {
        Err(error) => RequestError::read("", error.path(), error.inner()),
        Ok(_) => RequestError { param: None, message: error.to_string() },
    }
}

#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct Wire {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    messages: Vec<WireMessage>,
    #[serde(default)]
    temperature: Option<f64>,
    #[serde(default)]
    top_p: Option<f64>,
    #[serde(default)]
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    stop: Option<Stop>,
    #[serde(default)]
    n: Option<u32>,
    #[serde(default)]
    seed: Option<i64>,
    #[serde(default)]
    presence_penalty: Option<f64>,
    #[serde(default)]
    frequency_penalty: Option<f64>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
    #[serde(default)]
    tool_choice: Option<Value>,
    #[serde(default)]
    parallel_tool_calls: Option<bool>,
    #[serde(default)]
    response_format: Option<Value>,
    #[serde(default)]
    reasoning_effort: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(flatten)]
    rest: JsonMap,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum Stop {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct WireMessage {
    role: Role,
    #[serde(default)]
    content: WireContent,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<WireToolCall>>,
    #[serde(default)]
    tool_call_id: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(flatten)]
    rest: JsonMap,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct WireToolCall {
    #[serde(default)]
    id: String,
    #[serde(default)]
    r#type: Option<String>,
    function: WireFunctionCall,
    #[serde(flatten)]
    rest: JsonMap,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct WireFunctionCall {
    name: String,
    #[serde(default)]
    arguments: String,
}

#[derive(Default)]
struct WireContent(Content);

impl<'de> Deserialize<'de> for WireContent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ContentVisitor;
        impl<'de> Visitor<'de> for ContentVisitor {
            type Value = Content;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a string, a list of content parts, or null")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(Text::from(text)))
            }
            fn visit_unit<E: de::Error>(self) -> Result<Content, E> {
                Ok(Content::None)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
                let mut values = Vec::new();
                while let Some(part) = parts.next_element::<Value>()? {
                    if !part.is_object() {
                        return Err(de::Error::custom("expected content parts to be objects with a \"type\""));
                    }
                    values.push(part);
                }
                Ok(Content::Parts(values))
            }
            fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Content, A::Error> {
                Err(de::Error::invalid_type(de::Unexpected::Map, &self))
            }
        }
        deserializer.deserialize_any(ContentVisitor).map(Self)
    }
}

impl Wire {
    /// `reasoning_effort`, or AssemblyAI's and OpenRouter's `reasoning` where it says nothing but the same.
    fn take_effort(&mut self) -> Option<String> {
        let Some(Value::Object(reasoning)) = self.rest.get("reasoning") else { return self.reasoning_effort.take() };
        let effort = reasoning.get("effort").filter(|_| reasoning.len() == 1).and_then(Value::as_str);
        let Some(effort) = effort.map(str::to_owned) else { return self.reasoning_effort.take() };
        self.rest.shift_remove("reasoning");
        self.reasoning_effort.take().or(Some(effort))
    }

    fn into_request(mut self) -> Result<(ChatRequest, Option<String>), RequestError> {
        let reasoning_effort = self.take_effort();
        let request = ChatRequest {
            messages: self.messages.into_iter().map(WireMessage::into_message).collect(),
            temperature: self.temperature,
            top_p: self.top_p,
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
            stop: match self.stop {
                None => Vec::new(),
                Some(Stop::One(one)) => vec![one],
                Some(Stop::Many(many)) => many,
            },
            n: self.n,
            seed: self.seed,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            tools: read_tools(self.tools.unwrap_or_default())?,
            tool_choice: self.tool_choice.map(read_tool_choice).transpose()?,
            parallel_tool_calls: self.parallel_tool_calls,
            response_format: self.response_format.map(read_response_format).transpose()?,
            reasoning_effort,
            user: self.user,
            stream: self.stream.unwrap_or(false),
            include_usage: self.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
            rest: self.rest,
        };
        Ok((request, self.model))
    }
}

impl WireMessage {
    fn into_message(self) -> Message {
        Message {
            role: self.role,
            content: self.content.0,
            name: self.name,
            tool_calls: self.tool_calls.unwrap_or_default().into_iter().map(WireToolCall::into_call).collect(),
            tool_call_id: self.tool_call_id,
            refusal: self.refusal,
            rest: self.rest,
        }
    }
}

impl WireToolCall {
    fn into_call(self) -> ToolCall {
        // `type` is "function" wherever there is a function; it is written back as such.
        let _ = self.r#type;
        ToolCall { id: self.id, name: self.function.name, arguments: self.function.arguments, rest: self.rest }
    }
}

fn read_tools(tools: Vec<Value>) -> Result<Vec<Tool>, RequestError> {
    tools
        .into_iter()
        .enumerate()
        .map(|(position, mut tool)| match tool.get("type").and_then(Value::as_str) {
            Some("function") => {
                let function = tool.get_mut("function").map(Value::take).unwrap_or_default();
                serde_json::from_value(function)
                    .map(Tool::Function)
                    .map_err(|error| RequestError::field(format!("tools[{position}].function"), error.to_string()))
            }
            Some(_) => Ok(Tool::Other(tool)),
            None => Err(RequestError::field(
                format!("tools[{position}]"),
                "expected an object with \"type\":\"function\" and \"function\"",
            )),
        })
        .collect()
}

fn read_tool_choice(choice: Value) -> Result<ToolChoice, RequestError> {
    match choice.as_str() {
        Some("none") => return Ok(ToolChoice::None),
        Some("auto") => return Ok(ToolChoice::Auto),
        Some("required") => return Ok(ToolChoice::Required),
        Some(other) => {
            let message = format!("expected none, auto, required or a function, found {other:?}");
            return Err(RequestError::field("tool_choice", message));
        }
        None => {}
    }
    if choice.get("type").and_then(Value::as_str) == Some("function")
        && let Some(name) = choice.pointer("/function/name").and_then(Value::as_str)
    {
        return Ok(ToolChoice::Named(name.to_owned()));
    }
    if choice.is_object() {
        return Ok(ToolChoice::Other(choice));
    }
    Err(RequestError::field("tool_choice", "expected none, auto, required or a function"))
}

fn read_response_format(mut format: Value) -> Result<ResponseFormat, RequestError> {
    let kind = format.get("type").and_then(Value::as_str).unwrap_or_default();
    match kind {
        "text" => Ok(ResponseFormat::Text),
        // llama.cpp and Together take a schema here; it means the same as `json_schema`.
        "json_object" => match format.get_mut("schema").map(Value::take) {
            Some(schema) if schema.is_object() => {
                Ok(ResponseFormat::JsonSchema { name: "answer".to_owned(), schema: Arc::new(schema), strict: false })
            }
            _ => Ok(ResponseFormat::JsonObject),
        },
        "json_schema" => {
            let spec = format.get_mut("json_schema").map(Value::take).unwrap_or_default();
            let Value::Object(mut spec) = spec else {
                return Err(RequestError::field("response_format.json_schema", "expected an object"));
            };
            let name = spec.get("name").and_then(Value::as_str).unwrap_or("answer").to_owned();
            let valid_name = (1..=64).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
            if !valid_name {
                return Err(RequestError::field(
                    "response_format.json_schema.name",
                    "expected 1 to 64 characters of A-Z a-z 0-9 _ -",
                ));
            }
            let strict = spec.get("strict").and_then(Value::as_bool).unwrap_or(false);
            let schema = spec.remove("schema").unwrap_or_else(|| Value::Object(JsonMap::new()));
            if !schema.is_object() && !schema.is_boolean() {
                return Err(RequestError::field("response_format.json_schema.schema", "expected a JSON schema"));
            }
            Ok(ResponseFormat::JsonSchema { name, schema: Arc::new(schema), strict })
        }
        other => Err(RequestError::field(
            "response_format.type",
            format!("expected text, json_object or json_schema, found {other:?}"),
        )),
    }
}
