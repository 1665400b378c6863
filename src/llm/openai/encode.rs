//! Encodes requests in OpenAI's format, with a vendor's differences.
//!
//! Knows no vendor by name.

use serde_json::Value;

use super::vendors::OpenAi;
use crate::llm::calls::unique_ids;
use crate::llm::emulate;
use crate::llm::json::{self, Object};
use crate::llm::{
    Call, ChatRequest, Content, Message, ResponseFormat, Role, SchemaMode, THINKING_BLOCKS, Tool, ToolCall, ToolChoice,
    Unsupported,
};

/// A little more than the prompt needs, so that the body is allocated only once.
pub(super) fn body_size(request: &ChatRequest) -> usize {
    let prompt: usize = request
        .messages
        .iter()
        .map(|message| match &message.content {
            Content::Text(text) => text.len(),
            Content::Blocks(blocks) => blocks.iter().map(|block| block.text.len() + 32).sum(),
            Content::None | Content::Parts(_) => 256,
        })
        .sum();
    1024 + prompt + prompt / 16
}

impl OpenAi {
    /// Refuses requested features that the vendor would silently ignore.
    pub(super) fn refuse(&self, request: &ChatRequest) -> Result<(), Unsupported> {
        let asked = |what: &&&str| match **what {
            "n" => request.n.is_some_and(|n| n > 1),
            // `none` is sent by leaving the tools out.
            "tool_choice" => !matches!(&request.tool_choice, None | Some(ToolChoice::None | ToolChoice::Auto)),
            other => request.rest.get(other).is_some_and(|value| !value.is_null()),
        };
        match self.ignores.iter().find(asked) {
            None => Ok(()),
            Some(what) => Err(Unsupported(format!("{} ignores {what}", self.name))),
        }
    }

    pub(super) fn write_body(&self, body: &mut Vec<u8>, request: &ChatRequest, call: &Call<'_>) {
        let mut object = Object::new(body);
        object.string("model", call.model);
        let instruction = emulate::instruction(request, call.schema_mode, self.json_object);
        let messages = unique_ids(&request.messages, self.call_ids);
        self.write_messages(object.key("messages"), &messages, instruction.as_deref(), call);
        if call.stream {
            object.value("stream", &true);
            if self.stream_options {
                object.key("stream_options").extend_from_slice(br#"{"include_usage":true}"#);
            }
        }
        object.option("temperature", request.temperature.as_ref());
        object.option("top_p", request.top_p.as_ref());
        object.option(self.max_tokens, request.max_tokens.as_ref());
        if !request.stop.is_empty() {
            object.value("stop", &request.stop);
        }
        object.option("n", request.n.as_ref().filter(|n| self.defaults || **n != 1));
        object.option(self.seed, request.seed.as_ref());
        object.option("presence_penalty", request.presence_penalty.as_ref());
        object.option("frequency_penalty", request.frequency_penalty.as_ref());
        let without_tools = self.ignores.contains(&"tool_choice") && request.tool_choice == Some(ToolChoice::None);
        if !request.tools.is_empty() && !without_tools {
            json::list(object.key("tools"), &request.tools, write_tool);
        }
        match &request.tool_choice {
            None => {}
            Some(_) if without_tools => {}
            Some(ToolChoice::None) => object.string("tool_choice", "none"),
            Some(ToolChoice::Auto) => object.string("tool_choice", "auto"),
            Some(ToolChoice::Required) => object.string("tool_choice", "required"),
            Some(ToolChoice::Named(name)) => {
                let out = object.key("tool_choice");
                out.extend_from_slice(br#"{"type":"function","function":{"name":"#);
                json::string(out, name);
                out.extend_from_slice(b"}}");
            }
            Some(ToolChoice::Other(value)) => object.value("tool_choice", value),
        }
        object.option("parallel_tool_calls", request.parallel_tool_calls.as_ref().filter(|_| self.defaults));
        match (&request.response_format, call.schema_mode) {
            (None | Some(ResponseFormat::Text), _) | (Some(ResponseFormat::JsonSchema { .. }), SchemaMode::Prompt) => {}
            (Some(ResponseFormat::JsonObject), _) if !self.json_object => {}
            (Some(ResponseFormat::JsonObject), _) => {
                object.key("response_format").extend_from_slice(br#"{"type":"json_object"}"#);
            }
            (Some(ResponseFormat::JsonSchema { schema, .. }), SchemaMode::JsonObject) => {
                let out = object.key("response_format");
                out.extend_from_slice(br#"{"type":"json_object","schema":"#);
                json::value(out, schema);
                out.push(b'}');
            }
            (Some(ResponseFormat::JsonSchema { name, schema, strict }), SchemaMode::JsonSchema) => {
                let out = object.key("response_format");
                out.extend_from_slice(br#"{"type":"json_schema","json_schema":{"name":"#);
                json::string(out, name);
                out.extend_from_slice(b",\"schema\":");
                json::value(out, schema);
                out.extend_from_slice(b",\"strict\":");
                json::value(out, strict);
                out.extend_from_slice(b"}}");
            }
        }
        match &request.reasoning_effort {
            Some(effort) if self.reasoning_object => {
                let mut reasoning = Object::new(object.key("reasoning"));
                reasoning.string("effort", effort);
                reasoning.end();
            }
            effort => object.option("reasoning_effort", effort.as_ref()),
        }
        object.option("user", request.user.as_ref().filter(|_| self.user));
        self.cache.write_fields(&mut object, call.model, request);
        for (key, value) in request.rest.iter().filter(|(_, value)| self.defaults || !value.is_null()) {
            object.other(key, value);
        }
        object.end();
    }

    fn write_messages(&self, out: &mut Vec<u8>, messages: &[Message], instruction: Option<&str>, call: &Call<'_>) {
        // Many chat templates allow only one system message, and only as the first, so the instruction is appended to
        // it.
        let joins = instruction.is_some()
            && messages
                .first()
                .is_some_and(|first| first.role.instructs() && matches!(first.content, Content::Text(_)));
        let added = instruction.filter(|_| !joins).map(|text| Message::text(Role::System, text));
        let mut rest = messages;
        let joined = match (instruction, messages.split_first()) {
            (Some(instruction), Some((first, others))) if joins => {
                rest = others;
                let mut first = first.clone();
                if let Content::Text(text) = &mut first.content {
                    text.push("\n\n");
                    text.push(instruction);
                }
                Some(first)
            }
            _ => None,
        };
        json::list(out, added.iter().chain(&joined).chain(rest), |out, message| match &message.content {
            Content::Blocks(blocks) => {
                self.cache.write_message(out, blocks, (call.model, call.marks), |out| self.open_message(out, message));
            }
            _ => self.write_message(out, message),
        });
    }

    fn open_message<'a>(&self, out: &'a mut Vec<u8>, message: &Message) -> Object<'a> {
        let mut object = Object::new(out);
        let role = if message.role == Role::Developer && !self.developer { Role::System } else { message.role };
        object.string("role", role.as_str());
        object
    }

    fn write_message(&self, out: &mut Vec<u8>, message: &Message) {
        let mut object = self.open_message(out, message);
        match &message.content {
            Content::Text(_) | Content::Blocks(_) => {
                json::segments(object.key("content"), message.content.segments());
            }
            Content::Parts(parts) => object.value("content", parts),
            // Required for all messages except those of an assistant that calls tools.
            Content::None => object.value("content", &Value::Null),
        }
        object.option("name", message.name.as_ref());
        if !message.tool_calls.is_empty() {
            json::list(object.key("tool_calls"), &message.tool_calls, |out, call| {
                let kept = |key: &str| self.extras || key != "extra_content";
                write_call(out, call, emulate::bare_call_id(&call.id), kept);
            });
        }
        object.option("tool_call_id", message.tool_call_id.as_deref().map(emulate::bare_call_id).as_ref());
        object.option("refusal", message.refusal.as_ref());
        for (key, value) in &message.rest {
            let thinking = matches!(key.as_str(), "reasoning_content" | "reasoning_details" | THINKING_BLOCKS);
            if self.extras || !thinking {
                object.other(key, value);
            }
        }
        object.end();
    }
}

fn write_tool(out: &mut Vec<u8>, tool: &Tool) {
    match tool {
        Tool::Other(value) => json::value(out, value),
        Tool::Function(function) => {
            out.extend_from_slice(br#"{"type":"function","function":"#);
            let mut object = Object::new(out);
            object.string("name", &function.name);
            object.option("description", function.description.as_ref());
            object.option("parameters", function.parameters.as_ref());
            object.option("strict", function.strict.as_ref());
            object.end();
            out.push(b'}');
        }
    }
}

/// Writes a tool call in OpenAI's format; also used for answers to OpenAI's clients.
pub(crate) fn write_tool_call(out: &mut Vec<u8>, call: &ToolCall) {
    write_call(out, call, &call.id, |_| true);
}

fn write_call(out: &mut Vec<u8>, call: &ToolCall, id: &str, kept: impl Fn(&str) -> bool) {
    let mut object = Object::new(out);
    object.string("id", id);
    object.string("type", "function");
    let function = object.key("function");
    let mut inner = Object::new(function);
    inner.string("name", &call.name);
    inner.string("arguments", &call.arguments);
    inner.end();
    for (key, value) in call.rest.iter().filter(|(key, _)| kept(key)) {
        object.other(key, value);
    }
    object.end();
}
