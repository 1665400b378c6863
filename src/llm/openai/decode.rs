//! Decodes OpenAI's answers and chunks, also as its many imitators write them: with fields left out, usage under two
//! names, tool calls on the choice, and finish reasons in the vendor's own words.

use std::borrow::Cow;

use serde_json::Value;

use super::text::WireText;
use super::wire::{WireAnswer, WireChoice, WireFunction, in_band};
use super::{plain, shape};
use crate::llm::calls::{Calls, Part};
use crate::llm::choices::Choices;
use crate::llm::complete::{self, Reason};
use crate::llm::{ChatResponse, Choice, Finish, Piece, StreamDecoder, StreamError, ToolCall, json, response, sse};

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

fn malformed(what: &str, error: &serde_json::Error) -> StreamError {
    StreamError::Malformed(format!("{what} is not in OpenAI's format: {}", response::describe(error)))
}

/// Decodes one stream.
#[derive(Default)]
pub(super) struct Decoder {
    started: bool,
    seen: Choices,
    calls: Calls,
    /// Set if the chunk just read differs from OpenAI's format, so that OpenAI's client would miss something.
    foreign: bool,
    /// Set if the chunk just read is a plain text chunk in OpenAI's format.
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
