//! Decodes OpenAI's answers and chunks, also as its many imitators write them: with fields left out, usage under two
//! names, tool calls on the choice, and finish reasons in the vendor's own words.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, json};

use super::text::WireText;
use super::{plain, shape};
use crate::llm::calls::{Calls, Part};
use crate::llm::choices::Choices;
use crate::llm::complete::{self, Reason};
use crate::llm::{
    ChatResponse, Choice, Finish, Piece, StreamDecoder, StreamError, ToolCall, Usage, failure, response, sse,
};
use crate::llm::{json, lenient};

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireAnswer {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    request_id: Option<String>,
    #[serde(deserialize_with = "lenient::count")]
    created: Option<u64>,
    #[serde(deserialize_with = "lenient::text")]
    model: Option<String>,
    #[serde(deserialize_with = "lenient::list")]
    choices: Vec<WireChoice>,
    #[serde(deserialize_with = "lenient::object")]
    usage: Option<WireUsage>,
    #[serde(deserialize_with = "lenient::error")]
    error: Option<Value>,
    system_fingerprint: Option<Value>,
    service_tier: Option<Value>,
    /// Groq's field for the usage, besides OpenAI's.
    #[serde(deserialize_with = "lenient::object")]
    x_groq: Option<WireGroq>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireGroq {
    #[serde(deserialize_with = "lenient::object")]
    usage: Option<WireUsage>,
}

impl WireAnswer {
    fn take_usage(&mut self) -> Option<Usage> {
        let beside = self.x_groq.take().and_then(|groq| groq.usage);
        self.usage.take().or(beside).map(WireUsage::into_usage)
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireChoice {
    #[serde(deserialize_with = "lenient::count")]
    index: Option<u32>,
    #[serde(deserialize_with = "lenient::object")]
    message: Option<WireMessage>,
    #[serde(deserialize_with = "lenient::object")]
    delta: Option<WireMessage>,
    /// AssemblyAI's reference places them here.
    #[serde(deserialize_with = "lenient::list")]
    tool_calls: Vec<WireToolCall>,
    #[serde(deserialize_with = "lenient::text")]
    finish_reason: Option<String>,
    /// OpenRouter's field: the finish reason of the vendor behind it.
    #[serde(deserialize_with = "lenient::text")]
    native_finish_reason: Option<String>,
    logprobs: Option<Value>,
    /// OpenRouter's field: the error of a model behind it that broke off.
    #[serde(deserialize_with = "lenient::error")]
    error: Option<Value>,
}

impl WireChoice {
    /// The error that ended this answer, if there is one.
    fn broken(&mut self) -> Option<StreamError> {
        let error = self.error.take().map(|error| StreamError::Vendor(in_band(error)));
        // The finish reason of the model behind a router may report a failure that the router's own does not.
        error.or_else(|| complete::reason(self.native_finish_reason.as_deref(), None).err())
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireMessage {
    content: Option<WireText>,
    #[serde(deserialize_with = "lenient::text")]
    refusal: Option<String>,
    reasoning_content: Option<WireText>,
    /// The name at OpenRouter and Groq; newer vLLM versions send both.
    reasoning: Option<WireText>,
    /// AssemblyAI's name.
    thinking: Option<WireText>,
    #[serde(deserialize_with = "lenient::list")]
    tool_calls: Vec<WireToolCall>,
    /// OpenAI's older form, from before tools: a single call.
    #[serde(deserialize_with = "lenient::object")]
    function_call: Option<WireFunction>,
    annotations: Option<Value>,
    audio: Option<Value>,
    /// OpenRouter's signed thinking, which the client must send back.
    reasoning_details: Option<Value>,
}

impl WireMessage {
    /// Takes the thinking, under any of its names, and the text.
    fn take_texts(&mut self) -> (Option<String>, Option<String>) {
        let names = [self.reasoning_content.take(), self.reasoning.take(), self.thinking.take()];
        let thinking = names.into_iter().flatten().filter_map(WireText::thoughts).next();
        match self.content.take().map(WireText::split) {
            None => (thinking, None),
            Some((within, text)) => (thinking.or(within), text),
        }
    }

    /// Takes the tool calls: those of the message, the additional ones of its choice, or else a call in the older form.
    fn take_calls(&mut self, beside: Vec<WireToolCall>) -> Vec<WireToolCall> {
        let mut calls = std::mem::take(&mut self.tool_calls);
        let others: Vec<WireToolCall> = beside.into_iter().filter(|call| !calls.contains(call)).collect();
        calls.extend(others);
        if calls.is_empty() {
            let call = |function| WireToolCall { index: Some(0), function: Some(function), ..WireToolCall::default() };
            calls.extend(self.function_call.take().map(call));
        }
        calls
    }
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(default)]
struct WireToolCall {
    #[serde(deserialize_with = "lenient::count")]
    index: Option<u64>,
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::object")]
    function: Option<WireFunction>,
    extra_content: Option<Value>,
}

impl WireToolCall {
    fn says_nothing(&self) -> bool {
        let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().trim().is_empty();
        let function = self.function.as_ref();
        function.is_none_or(|function| empty(&function.name) && empty(&function.arguments))
    }
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(default)]
struct WireFunction {
    #[serde(deserialize_with = "lenient::text")]
    name: Option<String>,
    /// JSON as text, or (from Ollama's older servers) the object itself.
    #[serde(deserialize_with = "lenient::arguments")]
    arguments: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireUsage {
    #[serde(deserialize_with = "lenient::tokens")]
    prompt_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::tokens")]
    completion_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::tokens")]
    input_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::tokens")]
    output_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::object")]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(deserialize_with = "lenient::object")]
    completion_tokens_details: Option<CompletionDetails>,
    /// DeepSeek's name for the cached tokens.
    #[serde(deserialize_with = "lenient::tokens")]
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PromptDetails {
    #[serde(deserialize_with = "lenient::tokens")]
    cached_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::tokens")]
    cache_write_tokens: Option<u64>,
    /// AssemblyAI's names for the tokens that Anthropic wrote to its cache.
    #[serde(deserialize_with = "lenient::object")]
    cache_creation: Option<CacheCreation>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CacheCreation {
    #[serde(deserialize_with = "lenient::tokens")]
    ephemeral_5m_input_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::tokens")]
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CompletionDetails {
    #[serde(deserialize_with = "lenient::tokens")]
    reasoning_tokens: Option<u64>,
}

impl WireUsage {
    /// OpenAI's prompt tokens include the cached ones, and its completion tokens include the reasoning.
    fn into_usage(self) -> Usage {
        let prompt = self.prompt_tokens_details;
        let written = prompt.as_ref().and_then(|details| {
            let created = details.cache_creation.as_ref().and_then(|created| {
                let parts = [created.ephemeral_5m_input_tokens, created.ephemeral_1h_input_tokens];
                parts.into_iter().flatten().reduce(u64::saturating_add)
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
    if let Some(error) = wire.error.take() {
        return Err(StreamError::Vendor(in_band(error)));
    }
    let usage = wire.take_usage().unwrap_or_default();
    if wire.choices.is_empty() {
        return Err(StreamError::Malformed("the answer has no choices".to_owned()));
    }
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
    let (mut seen, mut calls, mut unknown) = (Choices::default(), Calls::default(), Vec::new());
    for mut choice in wire.choices {
        if let Some(error) = choice.broken() {
            return Err(error);
        }
        seen.see(choice.index.unwrap_or(0))?;
        merge_choice(&mut response.choices, choice, &mut calls, &mut unknown)?;
    }
    response.choices.sort_by_key(|choice| choice.index);
    complete::whole(response, unknown)
}

/// Adds a choice to the answer. One without an index belongs to the first: AssemblyAI may send text and calls as
/// separate choices.
fn merge_choice(
    choices: &mut Vec<Choice>,
    wire: WireChoice,
    calls: &mut Calls,
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
    append(&mut choice.refusal, message.refusal.take());
    let mut pieces = Vec::new();
    for call in message.take_calls(wire.tool_calls).into_iter().filter(|call| !call.says_nothing()) {
        let function = call.function.unwrap_or_default();
        calls.begin(index, call.id, function.name, function.arguments.unwrap_or_default(), &mut pieces)?;
        let Some(Piece::ToolCall { id: Some(id), name: Some(name), arguments, .. }) = pieces.pop() else { continue };
        let rest = call.extra_content.map(|extra| ("extra_content".to_owned(), extra)).into_iter().collect();
        choice.tool_calls.push(ToolCall { id, name, arguments, rest });
    }
    calls.check(index)?;
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

/// An error object inside a 200. Its `code` or `status` is the status that it stands for, if that is an error status.
fn in_band(error: Value) -> failure::VendorError {
    let status = ["code", "status"].iter().find_map(|key| lenient::count_of(error.get(key)?));
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
    seen: Choices,
    calls: Calls,
    /// Set if the chunk just read differs from OpenAI's format, so that OpenAI's client would miss something.
    foreign: bool,
    /// Set if it is a plain text chunk in OpenAI's format.
    plain: bool,
}

impl StreamDecoder for Decoder {
    fn decode(&mut self, event: sse::Event<'_>, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        let data = json::whole(event.data);
        // A chunk that was repaired is not passed on unchanged: the client could not read it.
        self.foreign = matches!(data, Cow::Owned(_));
        self.plain = false;
        if complete::is_mark(data.as_bytes()) {
            out.push(Piece::Done);
            return Ok(());
        }
        if data.is_empty() {
            return Ok(());
        }
        if self.started
            && event.name != "error"
            && let Some(text) = plain::text(&data)
        {
            self.plain = true;
            if !text.is_empty() {
                out.push(Piece::Text { choice: 0, text: text.into_owned() });
            }
            return Ok(());
        }
        let mut chunk: WireAnswer = json::parse(&data).map_err(|error| malformed("a chunk", &error))?;
        let usage = chunk.take_usage();
        let named = !matches!(event.name, "" | "message" | "error");
        if named && usage.is_none() && chunk.choices.is_empty() {
            // An event of the server's own, for clients that know its name.
            return Ok(());
        }
        if let Some(error) = chunk.error.take() {
            return Err(StreamError::Vendor(in_band(error)));
        }
        if event.name == "error" {
            let value: Value = json::parse(&data).unwrap_or_default();
            return Err(StreamError::Vendor(in_band(value)));
        }
        // Azure's first chunk contains only the results of its filters, and other servers send events of their own.
        let begins = !chunk.choices.is_empty();
        if !self.started && begins {
            self.started = true;
            out.push(Piece::Start {
                id: chunk.id.or(chunk.request_id).unwrap_or_default(),
                model: chunk.model.unwrap_or_default(),
                created: chunk.created.filter(|created| *created > 0),
            });
        }
        for mut choice in chunk.choices {
            if let Some(error) = choice.broken() {
                return Err(error);
            }
            self.choice(choice, out)?;
        }
        out.extend(usage.map(Piece::Usage));
        Ok(())
    }

    fn as_openai(&self, data: &[u8]) -> bool {
        !self.foreign && (self.plain || shape::is_chunk(data))
    }
}

impl Decoder {
    fn choice(&mut self, wire: WireChoice, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        let choice = wire.index.unwrap_or(0);
        self.seen.see(choice)?;
        self.foreign |= wire.index.is_none() || wire.delta.is_none() || !wire.tool_calls.is_empty();
        let mut delta = wire.delta.or(wire.message).unwrap_or_default();
        self.foreign |= delta.thinking.is_some() || delta.function_call.is_some();
        self.foreign |= !matches!(delta.content, None | Some(WireText::Text(_)));
        // Thinking only under the vendor's own name, without further details that would be lost if the chunk is
        // rewritten.
        let renamed = delta.reasoning_content.is_none() && delta.reasoning_details.is_none();
        self.foreign |= renamed && delta.reasoning.is_some();
        let (thinking, text) = delta.take_texts();
        let not_empty = |text: Option<String>| text.filter(|text| !text.is_empty());
        out.extend(not_empty(thinking).map(|text| Piece::Reasoning { choice, text }));
        out.extend(not_empty(text).map(|text| Piece::Text { choice, text }));
        if let Some(text) = not_empty(delta.refusal.take()) {
            out.push(Piece::Refusal { choice, text });
        }
        for call in delta.take_calls(wire.tool_calls) {
            let WireFunction { name, arguments } = call.function.unwrap_or_default();
            let arguments = arguments.unwrap_or_default();
            self.foreign |= !self.calls.part(choice, Part { index: call.index, id: call.id, name, arguments }, out)?;
        }
        if let Some(value) = wire.logprobs.filter(|value| !value.is_null()) {
            out.push(Piece::Logprobs { choice, value });
        }
        let called = self.calls.any(choice);
        complete::finish(choice, wire.finish_reason.as_deref(), called, out)?;
        self.calls.check_end(choice, out)
    }
}
