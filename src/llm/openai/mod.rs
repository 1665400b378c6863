//! OpenAI's chat completions API, and all vendors that implement it: one struct holds the differences, one value per
//! vendor.
//!
//! Sources: the `openai` package's types; AssemblyAI's LLM Gateway reference; the servers' own documentation.

mod cache;
mod decode;
mod plain;
mod shape;
mod text;

use serde_json::Value;

use super::calls::{IdRule, unique_ids};
use super::emulate;
use super::json::{self, Object};
use super::{
    AuthScheme, Call, ChatRequest, ChatResponse, Content, KeyHeader, ListCall, Message, PromptCache, Provider,
    ResponseFormat, Role, SchemaMode, StreamDecoder, StreamError, THINKING_BLOCKS, Tool, ToolCall, ToolChoice,
    Unsupported, Wire, models,
};

/// The differences between OpenAI-compatible vendors.
#[derive(Debug)]
pub(super) struct OpenAi {
    name: &'static str,
    base_url: Option<&'static str>,
    key: KeyHeader,
    /// Name of the token limit. OpenAI's reasoning models refuse the older name; most other vendors know only that one.
    max_tokens: &'static str,
    /// Set if the role `developer` is known; otherwise it is sent as `system`.
    developer: bool,
    /// Set if `stream_options` is known.
    stream_options: bool,
    /// Set if there is a JSON mode without a schema; otherwise the prompt asks for JSON.
    json_object: bool,
    /// Set if fields that other vendors put into an assistant's message (its thinking, signatures of its calls) may be
    /// sent back with it. Strict vendors refuse fields that they do not know.
    extras: bool,
    /// Set if the effort is sent as `reasoning.effort`.
    reasoning_object: bool,
    /// The name of `seed`.
    seed: &'static str,
    /// Set if `user` is known.
    user: bool,
    /// Set if a parameter may be sent that only repeats the default. Otherwise it is left out, because it is refused if
    /// a model does not list it.
    defaults: bool,
    /// The rule for tool call ids that the vendor accepts; other ids are replaced by ones that follow it.
    call_ids: IdRule,
    /// Features that the vendor is known to ignore silently: `n`, `tool_choice`, `logit_bias`.
    ignores: &'static [&'static str],
    /// How its prompt cache is addressed.
    cache: cache::Dialect,
    schema_modes: &'static [SchemaMode],
}

/// At most 40 characters.
const SHORT_IDS: IdRule = IdRule { fits: |id| (1..=40).contains(&id.len()), length: 32 };
/// Nine letters and digits.
const NINE_IDS: IdRule =
    IdRule { fits: |id| id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), length: 9 };

const ALL_MODES: &[SchemaMode] = &[SchemaMode::JsonSchema, SchemaMode::JsonObject, SchemaMode::Prompt];

const BASE: OpenAi = OpenAi {
    name: "openai_compatible",
    base_url: None,
    key: KeyHeader::BEARER,
    max_tokens: "max_tokens",
    developer: false,
    stream_options: true,
    json_object: true,
    extras: true,
    reasoning_object: false,
    seed: "seed",
    user: true,
    defaults: true,
    call_ids: SHORT_IDS,
    ignores: &[],
    cache: cache::Dialect::None,
    schema_modes: ALL_MODES,
};

pub(super) static OPENAI: OpenAi = OpenAi {
    name: "openai",
    base_url: Some("https://api.openai.com/v1"),
    max_tokens: "max_completion_tokens",
    developer: true,
    extras: false,
    cache: cache::Dialect::OpenAi,
    ..BASE
};
pub(super) static COMPATIBLE: OpenAi = BASE;
/// AssemblyAI's LLM Gateway. It refuses parameters that a model does not support, and documents no `json_object`.
pub(super) static ASSEMBLYAI: OpenAi = OpenAi {
    name: "assemblyai",
    base_url: Some("https://llm-gateway.assemblyai.com/v1"),
    json_object: false,
    extras: false,
    reasoning_object: true,
    user: false,
    defaults: false,
    cache: cache::Dialect::AssemblyAi,
    schema_modes: &[SchemaMode::JsonSchema, SchemaMode::Prompt],
    ..BASE
};
/// Azure's `v1` API: `https://RESOURCE.openai.azure.com/openai/v1`.
pub(super) static AZURE: OpenAi = OpenAi {
    name: "azure",
    key: KeyHeader::named("api-key"),
    max_tokens: "max_completion_tokens",
    developer: true,
    extras: false,
    ..BASE
};
pub(super) static GROQ: OpenAi = OpenAi {
    name: "groq",
    base_url: Some("https://api.groq.com/openai/v1"),
    max_tokens: "max_completion_tokens",
    extras: false,
    ..BASE
};
/// llama.cpp's servers. The Python one answers 500 to `json_schema`; both constrain `json_object` with a schema.
pub(super) static LLAMACPP: OpenAi = OpenAi {
    name: "llamacpp",
    base_url: Some("http://127.0.0.1:8080/v1"),
    schema_modes: &[SchemaMode::JsonObject, SchemaMode::Prompt],
    ..BASE
};
/// Mistral refuses fields that it does not know. Its last chunk contains the usage without being asked for it.
pub(super) static MISTRAL: OpenAi = OpenAi {
    name: "mistral",
    base_url: Some("https://api.mistral.ai/v1"),
    stream_options: false,
    extras: false,
    seed: "random_seed",
    user: false,
    call_ids: NINE_IDS,
    ..BASE
};
/// Ollama silently ignores parameters that it does not know.
pub(super) static OLLAMA: OpenAi = OpenAi {
    name: "ollama",
    base_url: Some("http://127.0.0.1:11434/v1"),
    ignores: &["n", "tool_choice", "logit_bias"],
    ..BASE
};
pub(super) static OPENROUTER: OpenAi =
    OpenAi { name: "openrouter", base_url: Some("https://openrouter.ai/api/v1"), ..BASE };
pub(super) static TOGETHER: OpenAi = OpenAi { name: "together", base_url: Some("https://api.together.xyz/v1"), ..BASE };
pub(super) static VLLM: OpenAi = OpenAi { name: "vllm", base_url: Some("http://127.0.0.1:8000/v1"), ..BASE };

impl Provider for OpenAi {
    fn name(&self) -> &'static str {
        self.name
    }

    fn base_url(&self) -> Option<&'static str> {
        self.base_url
    }

    fn auth(&self) -> AuthScheme {
        AuthScheme::Key(self.key)
    }

    fn prompt_cache(&self, model: &str) -> Option<PromptCache> {
        self.cache.of(model)
    }

    fn schema_modes(&self) -> &'static [SchemaMode] {
        self.schema_modes
    }

    fn encode(&self, request: &ChatRequest, call: &Call<'_>) -> Result<Wire, Unsupported> {
        self.refuse(request)?;
        let mut body = Vec::with_capacity(body_size(request));
        self.write_body(&mut body, request, call);
        Ok(Wire { path: "/chat/completions".to_owned(), headers: Vec::new(), body })
    }

    fn list(&self, _call: &ListCall<'_>) -> Result<Wire, Unsupported> {
        Ok(Wire { path: "/models".to_owned(), headers: Vec::new(), body: Vec::new() })
    }

    fn read_list(&self, body: &[u8]) -> Result<models::Page, StreamError> {
        models::openai(body, self.name == ASSEMBLYAI.name)
    }

    fn answer(&self, body: &[u8]) -> Result<ChatResponse, StreamError> {
        decode::answer(body)
    }

    fn stream(&self) -> Box<dyn StreamDecoder> {
        Box::new(decode::Decoder::default())
    }

    fn speaks_openai(&self) -> bool {
        true
    }
}

/// A little more than the prompt needs, so that the body is allocated only once.
fn body_size(request: &ChatRequest) -> usize {
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
    fn refuse(&self, request: &ChatRequest) -> Result<(), Unsupported> {
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

    fn write_body(&self, body: &mut Vec<u8>, request: &ChatRequest, call: &Call<'_>) {
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
            Content::Blocks(blocks) => self.write_message_of_blocks(out, message, blocks, (call.model, call.marks)),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::llm::Marks;

    fn body(provider: &OpenAi, request: &ChatRequest, mode: SchemaMode) -> Value {
        let call = Call { model: "m", stream: true, schema_mode: mode, api_version: None, marks: Marks::default() };
        let wire = provider.encode(request, &call).expect("encodes");
        serde_json::from_slice(&wire.body).expect("JSON")
    }

    #[test]
    fn a_client_request_goes_through_unchanged() {
        let sent = json!({
            "model":"m",
            "messages":[
                {"role":"developer","content":"be\nbrief"},
                {"role":"user","content":[{"type":"text","text":"hi"}],"name":"ann"},
                {"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"x"}}}]},
                {"role":"tool","content":"1","tool_call_id":"c"}],
            "stream":true,"stream_options":{"include_usage":true},
            "temperature":0.5,"top_p":1.0,"max_completion_tokens":5,"stop":["x"],"n":2,"seed":-1,
            "tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":true}},{"type":"custom","custom":{}}],
            "tool_choice":{"type":"function","function":{"name":"f"}},"parallel_tool_calls":false,
            "response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{"type":"object"},"strict":true}},
            "reasoning_effort":"low","user":"u","service_tier":"flex","metadata":{"a":"b"}});
        let (request, model) = ChatRequest::from_json(sent.to_string().as_bytes()).expect("request");
        assert_eq!(model.as_deref(), Some("m"));
        assert_eq!(body(&OpenAi { extras: true, ..OPENAI }, &request, SchemaMode::JsonSchema), sent);
        // A field of another vendor, which OpenAI refuses.
        let mut strict = sent;
        if let Some(Value::Object(call)) = strict.pointer_mut("/messages/2/tool_calls/0") {
            call.remove("extra_content");
        }
        assert_eq!(body(&OPENAI, &request, SchemaMode::JsonSchema), strict);
    }

    #[test]
    fn thinking_has_one_name_in_a_stream_as_in_a_whole_answer() {
        let as_it_is = |delta: &str| {
            let data = format!(
                r#"{{"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#
            );
            let (mut decoder, mut out) = (OPENAI.stream(), Vec::new());
            decoder.decode(crate::llm::sse::Event { name: "", data: data.as_bytes() }, &mut out).expect("chunk");
            assert_eq!(out.last(), Some(&crate::llm::Piece::Reasoning { choice: 0, text: "hm".into() }));
            decoder.as_openai(data.as_bytes())
        };
        assert!(!as_it_is(r#"{"reasoning":"hm"}"#), "no client looks for it there");
        assert!(as_it_is(r#"{"reasoning":"hm","reasoning_content":"hm"}"#));
        assert!(as_it_is(r#"{"reasoning":"hm","reasoning_details":[{"type":"reasoning.text","text":"hm"}]}"#));
    }

    #[test]
    fn schemas_are_emulated_where_the_vendor_has_no_mode() {
        let mut request = ChatRequest {
            messages: vec![Message::text(Role::System, "rules"), Message::text(Role::User, "go")],
            response_format: Some(ResponseFormat::JsonSchema {
                name: "s".into(),
                schema: Arc::new(json!({"type":"object"})),
                strict: true,
            }),
            ..ChatRequest::default()
        };
        let sent = body(&COMPATIBLE, &request, SchemaMode::JsonObject);
        assert_eq!(sent["response_format"], json!({"type":"json_object","schema":{"type":"object"}}));
        let system = sent["messages"][0]["content"].as_str().expect("text");
        assert!(system.starts_with("rules\n\nAnswer with one JSON value"), "{system}");
        assert_eq!(sent["messages"].as_array().map(Vec::len), Some(2));
        request.messages.remove(0);
        let sent = body(&COMPATIBLE, &request, SchemaMode::Prompt);
        assert_eq!(sent.get("response_format"), None);
        assert_eq!(sent["messages"][0]["role"], "system");
        assert_eq!(sent["messages"][1]["content"], "go");
    }

    #[test]
    fn wrong_fields_are_named() {
        for (body, param) in [
            (r#"{"messages":[{"role":"user","content":5}]}"#, Some("messages[0].content")),
            (r#"{"messages":[{"role":"boss"}]}"#, Some("messages[0].role")),
            (r#"{"messages":[],"tools":[{}]}"#, Some("tools[0]")),
            (r#"{"messages":[],"temperature":"hot"}"#, Some("temperature")),
            (r#"{"messages":[]"#, None),
        ] {
            let error = ChatRequest::from_json(body.as_bytes()).expect_err(body);
            if let Some(param) = param {
                assert_eq!(error.param.as_deref(), Some(param), "{error}");
            }
        }
    }
}
