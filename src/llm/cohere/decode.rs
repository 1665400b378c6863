//! Decodes Cohere's answers and events.
//!
//! Knows no request.

use serde::Deserialize;
use serde_json::Value;

use crate::llm::calls::Calls;
use crate::llm::{ChatResponse, Piece, StreamDecoder, StreamError, Usage, complete, json, lenient, response, sse};

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireAnswer {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    finish_reason: Option<String>,
    #[serde(deserialize_with = "lenient::object")]
    message: Option<WireMessage>,
    #[serde(deserialize_with = "lenient::object")]
    usage: Option<WireUsage>,
}

/// Whole answers have lists where events have a single item.
#[derive(Deserialize, Default)]
#[serde(default)]
struct WireMessage {
    content: Value,
    #[serde(deserialize_with = "lenient::text")]
    tool_plan: Option<String>,
    #[serde(deserialize_with = "lenient::one_or_many")]
    tool_calls: Vec<WireCall>,
}

impl WireMessage {
    fn into_contents(self) -> Vec<Piece> {
        let contents = match self.content {
            Value::Array(contents) => contents,
            Value::Null => Vec::new(),
            one => vec![one],
        };
        contents.into_iter().filter_map(WireContent::read).flat_map(WireContent::into_pieces).collect()
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireContent {
    #[serde(deserialize_with = "lenient::text")]
    text: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    thinking: Option<String>,
}

impl WireContent {
    /// Reads a content object, or a plain text in its place.
    fn read(value: Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self { text: Some(text), thinking: None }),
            value @ Value::Object(_) => serde_json::from_value(value).ok(),
            _ => None,
        }
    }

    fn into_pieces(self) -> impl Iterator<Item = Piece> {
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        let thinking = said(self.thinking).map(|text| Piece::Reasoning { choice: 0, text });
        thinking.into_iter().chain(said(self.text).map(|text| Piece::Text { choice: 0, text }))
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireCall {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::object")]
    function: Option<WireFunction>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireFunction {
    #[serde(deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(deserialize_with = "lenient::arguments")]
    arguments: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireUsage {
    #[serde(deserialize_with = "lenient::object")]
    billed_units: Option<WireTokens>,
    #[serde(deserialize_with = "lenient::object")]
    tokens: Option<WireTokens>,
    #[serde(deserialize_with = "lenient::tokens")]
    cached_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireTokens {
    #[serde(deserialize_with = "lenient::tokens")]
    input_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::tokens")]
    output_tokens: Option<u64>,
}

impl WireUsage {
    /// Billed tokens exclude those that Cohere itself adds to the prompt. The prompt tokens include the cached ones.
    fn into_usage(self) -> Usage {
        let billed = self.billed_units.filter(|billed| billed.input_tokens.is_some() || billed.output_tokens.is_some());
        let tokens = billed.or(self.tokens);
        Usage {
            input: tokens.as_ref().and_then(|tokens| tokens.input_tokens),
            cached: self.cached_tokens,
            output: tokens.as_ref().and_then(|tokens| tokens.output_tokens),
            ..Usage::default()
        }
    }
}

/// Reads a whole answer.
pub(super) fn answer(body: &[u8]) -> Result<ChatResponse, StreamError> {
    let wire: WireAnswer = json::read(body).map_err(|error| malformed("the answer", &error))?;
    let Some(mut message) = wire.message else {
        return Err(StreamError::Malformed("the answer has no message".to_owned()));
    };
    let mut answer = ChatResponse::default();
    let mut pieces = vec![Piece::Start { id: wire.id.unwrap_or_default(), model: String::new(), created: None }];
    pieces.extend(message.tool_plan.take().map(|text| Piece::Reasoning { choice: 0, text }));
    let mut decoder = Decoder::default();
    let tool_calls = std::mem::take(&mut message.tool_calls);
    pieces.extend(message.into_contents());
    tool_calls.into_iter().try_for_each(|call| decoder.begin(None, call, &mut pieces))?;
    decoder.calls.check(0)?;
    pieces.extend(wire.usage.map(|usage| Piece::Usage(usage.into_usage())));
    complete::finish(0, wire.finish_reason.as_deref(), false, &mut pieces)?;
    pieces.iter().for_each(|piece| answer.absorb(piece));
    let unknown = pieces.into_iter().filter_map(|piece| match piece {
        Piece::UnknownFinish { choice, word } => Some((choice, word)),
        _ => None,
    });
    complete::whole(answer, unknown.collect())
}

fn malformed(what: &str, error: &serde_json::Error) -> StreamError {
    StreamError::Malformed(format!("{what} is not in Cohere's format: {}", response::describe(error)))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireEvent {
    #[serde(deserialize_with = "lenient::text")]
    r#type: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::count")]
    index: Option<u64>,
    #[serde(deserialize_with = "lenient::object")]
    delta: Option<WireDelta>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireDelta {
    #[serde(deserialize_with = "lenient::object")]
    message: Option<WireMessage>,
    #[serde(deserialize_with = "lenient::text")]
    finish_reason: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    error: Option<String>,
    #[serde(deserialize_with = "lenient::object")]
    usage: Option<WireUsage>,
}

/// Decodes one stream.
#[derive(Default)]
pub(super) struct Decoder {
    calls: Calls,
    /// The vendor's number and our index of each call that has begun.
    begun: Vec<(Option<u64>, u32)>,
}

impl Decoder {
    fn begin(&mut self, index: Option<u64>, call: WireCall, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        let function = call.function.unwrap_or_default();
        let arguments = function.arguments.unwrap_or_default();
        let begun = self.calls.begin(0, call.id, function.name, arguments, out)?;
        self.begun.push((index, begun));
        Ok(())
    }

    fn more(&mut self, index: Option<u64>, call: WireCall, out: &mut Vec<Piece>) {
        let of_index = self.begun.iter().rev().find(|(known, _)| *known == index);
        let arguments = call.function.and_then(|function| function.arguments);
        if let (Some((_, begun)), Some(arguments)) = (of_index.or(self.begun.last()), arguments) {
            self.calls.more(0, *begun, arguments, out);
        }
    }
}

impl StreamDecoder for Decoder {
    fn decode(&mut self, event: sse::Event<'_>, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        if complete::is_mark(event.data) {
            out.push(Piece::Done);
            return Ok(());
        }
        if event.data.is_empty() {
            return Ok(());
        }
        let name = event.name;
        let event: WireEvent = json::read(event.data).map_err(|error| malformed("an event", &error))?;
        let delta = event.delta.unwrap_or_default();
        match (event.r#type.as_deref().unwrap_or(name), delta.message) {
            ("message-start", _) => {
                out.push(Piece::Start { id: event.id.unwrap_or_default(), model: String::new(), created: None });
            }
            ("content-start" | "content-delta", Some(message)) => {
                out.extend(message.into_contents());
            }
            ("tool-plan-delta", Some(message)) => {
                out.extend(message.tool_plan.map(|text| Piece::Reasoning { choice: 0, text }));
            }
            ("tool-call-start", Some(message)) => {
                message.tool_calls.into_iter().try_for_each(|call| self.begin(event.index, call, out))?;
            }
            ("tool-call-delta", Some(message)) => {
                message.tool_calls.into_iter().for_each(|call| self.more(event.index, call, out));
            }
            ("message-end", _) => {
                out.extend(delta.usage.map(|usage| Piece::Usage(usage.into_usage())));
                let why = delta.error.as_deref().filter(|why| !why.is_empty());
                // An `error` without a finish reason counts as the finish reason `ERROR`.
                let word = delta.finish_reason.as_deref().or(why.map(|_| "ERROR"));
                complete::reason(word, why)?;
                complete::finish(0, word, false, out)?;
                self.calls.check_end(0, out)?;
                out.push(Piece::Done);
            }
            // Ends of contents and calls, citations, and event types that are added in the future.
            _ => {}
        }
        Ok(())
    }
}
