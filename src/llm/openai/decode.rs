//! OpenAI's answers and chunks, as its many imitators write them: fields left out, usage under two names, tool calls on
//! the choice, finish reasons in the vendor's own words.

use serde::Deserialize;
use serde_json::{Value, json};

use super::text::WireText;
use super::{plain, shape};
use crate::llm::complete::{self, Reason};
use crate::llm::json;
use crate::llm::{
    ChatResponse, Choice, Finish, Piece, StreamDecoder, StreamError, ToolCall, Usage, failure, response, sse,
};
use crate::types::JsonMap;

#[derive(Deserialize)]
struct WireAnswer {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    request_id: Option<String>,
    #[serde(default)]
    created: Option<u64>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    choices: Option<Vec<WireChoice>>,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(default)]
    error: Option<Value>,
    #[serde(default)]
    system_fingerprint: Option<Value>,
    #[serde(default)]
    service_tier: Option<Value>,
    /// Groq's place for usage, beside OpenAI's.
    #[serde(default)]
    x_groq: Option<WireGroq>,
}

#[derive(Deserialize)]
struct WireGroq {
    #[serde(default)]
    usage: Option<WireUsage>,
}

impl WireAnswer {
    fn take_usage(&mut self) -> Option<Usage> {
        let beside = self.x_groq.take().and_then(|groq| groq.usage);
        self.usage.take().or(beside).map(WireUsage::into_usage)
    }
}

#[derive(Deserialize)]
struct WireChoice {
    #[serde(default)]
    index: Option<u32>,
    #[serde(default)]
    message: Option<WireMessage>,
    #[serde(default)]
    delta: Option<WireMessage>,
    /// Where AssemblyAI's reference has them.
    #[serde(default)]
    tool_calls: Option<Vec<WireToolCall>>,
    #[serde(default)]
    finish_reason: Option<String>,
    /// OpenRouter's, in the words of the vendor behind it.
    #[serde(default)]
    native_finish_reason: Option<String>,
    #[serde(default)]
    logprobs: Option<Value>,
    /// OpenRouter's, of a model behind it that broke off.
    #[serde(default)]
    error: Option<Value>,
}

impl WireChoice {
    /// The error that ended this answer.
    fn broken(&mut self) -> Option<StreamError> {
        let error = self.error.take().filter(|error| !error.is_null());
        let error = error.map(|error| StreamError::Vendor(in_band(error)));
        // The reason of the model behind a router may tell of a failure that the router's own does not.
        error.or_else(|| complete::reason(self.native_finish_reason.as_deref(), None).err())
    }
}

#[derive(Deserialize, Default)]
struct WireMessage {
    #[serde(default)]
    content: Option<WireText>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    reasoning_content: Option<WireText>,
    /// OpenRouter's and Groq's name; newer vLLM sends both.
    #[serde(default)]
    reasoning: Option<WireText>,
    /// AssemblyAI's name.
    #[serde(default)]
    thinking: Option<WireText>,
    #[serde(default)]
    tool_calls: Option<Vec<WireToolCall>>,
    #[serde(default)]
    annotations: Option<Value>,
    #[serde(default)]
    audio: Option<Value>,
    /// OpenRouter's signed thinking, to be sent back.
    #[serde(default)]
    reasoning_details: Option<Value>,
}

impl WireMessage {
    /// The thinking, under whichever name it came, and what is said.
    fn take_texts(&mut self) -> (Option<String>, Option<String>) {
        let thinking = self.reasoning_content.take().or(self.reasoning.take()).or(self.thinking.take());
        let thinking = thinking.and_then(|text| text.split().1);
        match self.content.take().map(WireText::split) {
            None => (thinking, None),
            Some((within, text)) => (thinking.or(within), text),
        }
    }
}

#[derive(Deserialize)]
struct WireToolCall {
    #[serde(default)]
    index: Option<u32>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    function: Option<WireFunction>,
    #[serde(default)]
    extra_content: Option<Value>,
}

#[derive(Deserialize, Default)]
struct WireFunction {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<WireArguments>,
}

/// A JSON text, or (Ollama's older servers) the object itself.
#[derive(Deserialize)]
#[serde(untagged)]
enum WireArguments {
    Text(String),
    Value(Value),
}

impl WireArguments {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Value(value) => value.to_string(),
        }
    }
}

#[derive(Deserialize)]
struct WireUsage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionDetails>,
    /// DeepSeek's name.
    #[serde(default)]
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
    #[serde(default)]
    cache_write_tokens: Option<u64>,
    /// AssemblyAI's names for what Anthropic wrote to its cache.
    #[serde(default)]
    cache_creation: Option<CacheCreation>,
}

#[derive(Deserialize)]
struct CacheCreation {
    #[serde(default)]
    ephemeral_5m_input_tokens: Option<u64>,
    #[serde(default)]
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

impl WireUsage {
    /// OpenAI's prompt tokens include the cached ones, its completion tokens the reasoning.
    fn into_usage(self) -> Usage {
        let prompt = self.prompt_tokens_details;
        let written = prompt.as_ref().and_then(|details| {
            let created = details.cache_creation.as_ref().and_then(|created| {
                let parts = [created.ephemeral_5m_input_tokens, created.ephemeral_1h_input_tokens];
                parts.iter().any(Option::is_some).then(|| parts.iter().flatten().sum())
            });
            details.cache_write_tokens.or(created)
        });
        Usage {
            input: self.prompt_tokens.or(self.input_tokens),
            cached: prompt.and_then(|details| details.cached_tokens).or(self.prompt_cache_hit_tokens),
            cache_write: written,
            output: self.completion_tokens.or(self.output_tokens),
            reasoning: self.completion_tokens_details.and_then(|details| details.reasoning_tokens),
        }
    }
}

/// Reads a whole answer.
pub(super) fn answer(body: &[u8]) -> Result<ChatResponse, StreamError> {
    let mut wire: WireAnswer = json::read(body).map_err(|error| malformed("the answer", &error))?;
    if let Some(error) = wire.error.take().filter(|error| !error.is_null()) {
        return Err(StreamError::Vendor(in_band(error)));
    }
    let usage = wire.take_usage().unwrap_or_default();
    let Some(choices) = wire.choices.filter(|choices| !choices.is_empty()) else {
        return Err(StreamError::Malformed("the answer has no choices".to_owned()));
    };
    let mut response = ChatResponse {
        id: wire.id.or(wire.request_id).unwrap_or_default(),
        created: wire.created,
        model: wire.model.unwrap_or_default(),
        usage,
        ..ChatResponse::default()
    };
    for (key, value) in [("system_fingerprint", wire.system_fingerprint), ("service_tier", wire.service_tier)] {
        if let Some(value) = value {
            response.rest.insert(key.to_owned(), value);
        }
    }
    let mut unknown = Vec::new();
    for mut choice in choices {
        if let Some(error) = choice.broken() {
            return Err(error);
        }
        merge_choice(&mut response.choices, choice, &mut unknown)?;
    }
    response.choices.sort_by_key(|choice| choice.index);
    complete::whole(response, unknown)
}

/// A choice without an index belongs to the first: AssemblyAI may send text and calls as separate choices.
fn merge_choice(
    choices: &mut Vec<Choice>,
    wire: WireChoice,
    unknown: &mut Vec<(u32, String)>,
) -> Result<(), StreamError> {
    let index = wire.index.unwrap_or(0);
    let position = match choices.iter().position(|choice| choice.index == index) {
        Some(position) => position,
        None => {
            choices.push(Choice { index, ..Choice::default() });
            choices.len() - 1
        }
    };
    let choice = &mut choices[position];
    let mut message = wire.message.or(wire.delta).unwrap_or_default();
    let (thinking, text) = message.take_texts();
    append(&mut choice.reasoning, thinking);
    append(&mut choice.text, text);
    append(&mut choice.refusal, message.refusal);
    let calls = message.tool_calls.into_iter().flatten().chain(wire.tool_calls.into_iter().flatten());
    for call in calls {
        let function = call.function.unwrap_or_default();
        let mut rest = JsonMap::new();
        if let Some(extra) = call.extra_content {
            rest.insert("extra_content".to_owned(), extra);
        }
        choice.tool_calls.push(ToolCall {
            id: call
                .id
                .filter(|id| !id.is_empty())
                .unwrap_or_else(|| format!("call_{}_{}", index, choice.tool_calls.len())),
            name: function.name.unwrap_or_default(),
            arguments: function.arguments.map(WireArguments::into_text).unwrap_or_default(),
            rest,
        });
    }
    let others = [
        ("annotations", message.annotations),
        ("audio", message.audio),
        ("reasoning_details", message.reasoning_details),
    ];
    for (key, value) in others {
        if let Some(value) = value.filter(|value| !value.is_null()) {
            choice.rest.insert(key.to_owned(), value);
        }
    }
    choice.logprobs = wire.logprobs.filter(|value| !value.is_null()).or(choice.logprobs.take());
    match complete::reason(wire.finish_reason.as_deref(), None)? {
        Reason::Known(reason) => choice.finish = Some(reason),
        Reason::Unknown(word) => unknown.push((index, word)),
        Reason::Absent => {}
    }
    if choice.finish == Some(Finish::Stop) && !choice.tool_calls.is_empty() {
        choice.finish = Some(Finish::ToolCalls);
    }
    Ok(())
}

fn append(ours: &mut Option<String>, more: Option<String>) {
    if let Some(more) = more {
        ours.get_or_insert_default().push_str(&more);
    }
}

/// An error object inside a 200: its `code` is the status that it stands for, if it is one.
fn in_band(error: Value) -> failure::VendorError {
    let status = error.get("code").or_else(|| error.get("status")).and_then(Value::as_u64);
    let named = ["type", "code"].iter().find_map(|key| match error.get(key)?.as_str()? {
        "rate_limit_error" | "rate_limit_exceeded" | "insufficient_quota" => Some(429),
        "invalid_request_error" => Some(400),
        _ => None,
    });
    let status = status.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code));
    failure::read_value(status.or(named).unwrap_or(500), &json!({ "error": error }))
}

fn malformed(what: &str, error: &serde_json::Error) -> StreamError {
    StreamError::Malformed(format!("{what} is none of OpenAI's: {}", response::describe(error)))
}

/// Decodes one stream.
#[derive(Default)]
pub(super) struct Decoder {
    started: bool,
    /// Of a vendor that gives no index: calls seen so far, by choice.
    calls: Vec<(u32, u32)>,
    /// The chunk just read is not as OpenAI has it: its client would overlook something.
    foreign: bool,
    /// It is as OpenAI has it.
    plain: bool,
}

impl StreamDecoder for Decoder {
    fn decode(&mut self, event: sse::Event<'_>, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        self.foreign = false;
        self.plain = false;
        if complete::is_mark(event.data) {
            out.push(Piece::Done);
            return Ok(());
        }
        if event.data.is_empty() {
            return Ok(());
        }
        if self.started
            && event.name != "error"
            && let Some(text) = plain::text(event.data)
        {
            self.plain = true;
            if !text.is_empty() {
                out.push(Piece::Text { choice: 0, text: text.into_owned() });
            }
            return Ok(());
        }
        let mut chunk: WireAnswer = json::read(event.data).map_err(|error| malformed("a chunk", &error))?;
        let usage = chunk.take_usage();
        let named = !matches!(event.name, "" | "message" | "error");
        if named && usage.is_none() && chunk.choices.as_ref().is_none_or(Vec::is_empty) {
            // The server's own, for readers who know its name.
            return Ok(());
        }
        if let Some(error) = chunk.error.take().filter(|error| !error.is_null()) {
            return Err(StreamError::Vendor(in_band(error)));
        }
        if event.name == "error" {
            let value: Value = json::read(event.data).unwrap_or_default();
            return Err(StreamError::Vendor(in_band(value)));
        }
        // Azure's first chunk tells of its filters alone, and other servers send events of their own.
        let begins = chunk.choices.as_ref().is_some_and(|choices| !choices.is_empty());
        if !self.started && begins {
            self.started = true;
            out.push(Piece::Start {
                id: chunk.id.or(chunk.request_id).unwrap_or_default(),
                model: chunk.model.unwrap_or_default(),
                created: chunk.created.filter(|created| *created > 0),
            });
        }
        for mut choice in chunk.choices.into_iter().flatten() {
            if let Some(error) = choice.broken() {
                return Err(error);
            }
            self.choice(choice, out)?;
        }
        out.extend(usage.map(Piece::Usage));
        Ok(())
    }

    fn as_openai(&self, data: &[u8]) -> bool {
        self.plain || (!self.foreign && shape::is_chunk(data))
    }
}

impl Decoder {
    fn choice(&mut self, wire: WireChoice, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        let choice = wire.index.unwrap_or(0);
        self.foreign |= wire.index.is_none() || wire.delta.is_none() || wire.tool_calls.is_some();
        let mut delta = wire.delta.or(wire.message).unwrap_or_default();
        self.foreign |= delta.thinking.is_some() || matches!(delta.content, Some(WireText::Parts(_)));
        // Thinking under a name of the vendor's own, without more of it that would get lost.
        let renamed = delta.reasoning_content.is_none() && delta.reasoning_details.is_none();
        self.foreign |= renamed && delta.reasoning.is_some();
        let (thinking, text) = delta.take_texts();
        let not_empty = |text: Option<String>| text.filter(|text| !text.is_empty());
        out.extend(not_empty(thinking).map(|text| Piece::Reasoning { choice, text }));
        out.extend(not_empty(text).map(|text| Piece::Text { choice, text }));
        if let Some(text) = delta.refusal.filter(|text| !text.is_empty()) {
            out.push(Piece::Refusal { choice, text });
        }
        for call in delta.tool_calls.into_iter().flatten().chain(wire.tool_calls.into_iter().flatten()) {
            let index = self.call_index(choice, call.index, call.id.is_some());
            let function = call.function.unwrap_or_default();
            self.foreign |= call.index.is_none() || matches!(function.arguments, Some(WireArguments::Value(_)));
            out.push(Piece::ToolCall {
                choice,
                index,
                id: call.id.filter(|id| !id.is_empty()),
                name: function.name.filter(|name| !name.is_empty()),
                arguments: function.arguments.map(WireArguments::into_text).unwrap_or_default(),
            });
        }
        if let Some(value) = wire.logprobs.filter(|value| !value.is_null()) {
            out.push(Piece::Logprobs { choice, value });
        }
        let called = self.calls.iter().any(|(of, count)| *of == choice && *count > 0);
        complete::finish(choice, wire.finish_reason.as_deref(), called, out)
    }

    /// The vendor's index; without one (Gemini's compatible API), a call with an id is a new call.
    fn call_index(&mut self, choice: u32, given: Option<u32>, has_id: bool) -> u32 {
        let position = match self.calls.iter().position(|(of, _)| *of == choice) {
            Some(position) => position,
            None => {
                self.calls.push((choice, 0));
                self.calls.len() - 1
            }
        };
        let count = &mut self.calls[position].1;
        match given {
            Some(index) => {
                *count = (*count).max(index.saturating_add(1));
                index
            }
            None => {
                if has_id || *count == 0 {
                    *count += 1;
                }
                *count - 1
            }
        }
    }
}
