//! A request as bodies spell it: OpenAI's fields and the alternatives that its imitators use, read into the canonical
//! types.
//!
//! Reports where a body is wrong and what is expected there. Knows no limits of values (see [`ChatRequest::check`]),
//! nor how a request is encoded for a vendor.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{ChatRequest, Content, Message, ResponseFormat, Role, Tool, ToolCall, ToolChoice};
use crate::llm::{RequestError, Text, json, lenient};
use crate::types::JsonMap;

/// Reads a body. Returns the request and the `model` that it names.
pub(super) fn read(body: &[u8]) -> Result<(ChatRequest, Option<String>), RequestError> {
    match json::read::<Wire>(body) {
        Ok(wire) => wire.into_request(),
        Err(error) => Err(where_it_fails(body, &error)),
    }
}

/// Reads some fields of a request as they would be in a body; all others have their defaults.
pub(super) fn read_params(params: &JsonMap) -> Result<ChatRequest, RequestError> {
    let wire: Wire = serde_path_to_error::deserialize(Value::Object(params.clone()))
        .map_err(|error| RequestError::read("", error.path(), error.inner()))?;
    Ok(wire.into_request()?.0)
}

/// Reads an invalid body once more to find the path of the error. Valid bodies do not pay for that.
fn where_it_fails(body: &[u8], error: &serde_json::Error) -> RequestError {
    let body = json::whole(body);
    if json::check(&body).is_err() {
        return RequestError { param: None, message: error.to_string() };
    }
    let mut deserializer = serde_json::Deserializer::from_str(&body);
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
    #[serde(default, deserialize_with = "lenient::text")]
    tool_call_id: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(flatten)]
    rest: JsonMap,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct WireToolCall {
    #[serde(default, deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    r#type: Option<String>,
    function: WireFunctionCall,
    #[serde(flatten)]
    rest: JsonMap,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct WireFunctionCall {
    name: String,
    /// JSON as text, or the object itself.
    #[serde(default, deserialize_with = "lenient::arguments")]
    arguments: Option<String>,
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
    /// Takes `reasoning_effort`, or the effort in AssemblyAI's and OpenRouter's `reasoning` if that contains nothing
    /// else.
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
            caching: None,
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
        // `type` is "function" for every call with a function, and is written back as such.
        let _ = self.r#type;
        let (id, arguments) = (self.id.unwrap_or_default(), self.function.arguments.unwrap_or_default());
        ToolCall { id, name: self.function.name, arguments, rest: self.rest }
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
        // llama.cpp and Together accept a schema here; it means the same as `json_schema`.
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
