//! Decodes Gemini's answers and stream chunks, which have the same format.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::llm::calls::Calls;
use crate::llm::choices::Choices;
use crate::llm::complete::{self, Reason};
use crate::llm::{ChatResponse, Finish, Piece, StreamDecoder, StreamError, Usage, emulate, failure, response, sse};
use crate::llm::{json, lenient};

/// Names of members are accepted in both spellings of protobuf's JSON: `finishReason` and `finish_reason`.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct WireAnswer {
    #[serde(deserialize_with = "lenient::list")]
    candidates: Vec<WireCandidate>,
    #[serde(alias = "usage_metadata", deserialize_with = "lenient::object")]
    usage_metadata: Option<WireUsage>,
    #[serde(alias = "model_version", deserialize_with = "lenient::text")]
    model_version: Option<String>,
    #[serde(alias = "response_id", deserialize_with = "lenient::text")]
    response_id: Option<String>,
    #[serde(alias = "prompt_feedback", deserialize_with = "lenient::object")]
    prompt_feedback: Option<WireFeedback>,
    #[serde(deserialize_with = "lenient::error")]
    error: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct WireCandidate {
    #[serde(deserialize_with = "lenient::count")]
    index: Option<u32>,
    #[serde(deserialize_with = "lenient::object")]
    content: Option<WireContent>,
    #[serde(alias = "finish_reason", deserialize_with = "lenient::text")]
    finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireContent {
    #[serde(deserialize_with = "lenient::one_or_many")]
    parts: Vec<WirePart>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct WirePart {
    #[serde(deserialize_with = "lenient::text")]
    text: Option<String>,
    #[serde(deserialize_with = "lenient::flag")]
    thought: bool,
    #[serde(alias = "function_call", deserialize_with = "lenient::object")]
    function_call: Option<WireCall>,
    #[serde(alias = "thought_signature", deserialize_with = "lenient::text")]
    thought_signature: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireCall {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(deserialize_with = "lenient::arguments")]
    args: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct WireFeedback {
    #[serde(alias = "block_reason", deserialize_with = "lenient::text")]
    block_reason: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct WireUsage {
    #[serde(alias = "prompt_token_count", deserialize_with = "lenient::tokens")]
    prompt_token_count: Option<u64>,
    #[serde(alias = "tool_use_prompt_token_count", deserialize_with = "lenient::tokens")]
    tool_use_prompt_token_count: Option<u64>,
    #[serde(alias = "cached_content_token_count", deserialize_with = "lenient::tokens")]
    cached_content_token_count: Option<u64>,
    #[serde(alias = "candidates_token_count", deserialize_with = "lenient::tokens")]
    candidates_token_count: Option<u64>,
    #[serde(alias = "thoughts_token_count", deserialize_with = "lenient::tokens")]
    thoughts_token_count: Option<u64>,
    #[serde(alias = "total_token_count", deserialize_with = "lenient::tokens")]
    total_token_count: Option<u64>,
}

impl WireUsage {
    /// Gemini's prompt count includes the cached tokens; its candidates count excludes the thoughts.
    ///
    /// Gemini leaves out counts of zero. If both output counts are missing, the output is the total minus the input.
    fn into_usage(self) -> Usage {
        let input =
            self.prompt_token_count.map(|tokens| tokens.saturating_add(self.tool_use_prompt_token_count.unwrap_or(0)));
        let output = match (self.candidates_token_count, self.thoughts_token_count) {
            (None, None) => self.total_token_count.zip(input).and_then(|(total, input)| total.checked_sub(input)),
            (answer, thoughts) => Some(answer.unwrap_or(0).saturating_add(thoughts.unwrap_or(0))),
        };
        Usage {
            input,
            cached: self.cached_content_token_count,
            cache_write: None,
            output,
            reasoning: self.thoughts_token_count,
        }
    }
}

/// The chunks of an event or a body: a single one, or a list.
fn read(body: &[u8], what: &str) -> Result<Vec<WireAnswer>, StreamError> {
    let malformed = |error: serde_json::Error| {
        StreamError::Malformed(format!("{what} is not in Gemini's format: {}", response::describe(&error)))
    };
    let mut wires: Vec<WireAnswer> = if body.trim_ascii_start().starts_with(b"[") {
        json::read(body).map_err(malformed)?
    } else {
        vec![json::read(body).map_err(malformed)?]
    };
    if wires.is_empty() {
        return Err(StreamError::Malformed(format!("{what} is an empty list")));
    }
    match wires.iter_mut().find_map(|wire| wire.error.take()) {
        Some(error) => {
            let status = error.get("code").and_then(lenient::count_of).and_then(|code| u16::try_from(code).ok());
            let status = status.filter(|status| *status >= 400).unwrap_or(500);
            Err(StreamError::Vendor(failure::read_value(status, &json!({ "error": error }))))
        }
        None => Ok(wires),
    }
}

/// Reads a whole answer: a single chunk, or a list of chunks.
pub(super) fn answer(body: &[u8]) -> Result<ChatResponse, StreamError> {
    let mut pieces = Vec::new();
    let mut decoder = Decoder::default();
    let mut answer = ChatResponse::default();
    let mut extras = Vec::new();
    let mut candidates = 0;
    for wire in read(body, "the answer")? {
        candidates += wire.candidates.len();
        extras.extend(decoder.take(wire, &mut pieces)?);
    }
    for piece in &pieces {
        answer.absorb(piece);
    }
    if answer.choices.is_empty() && candidates == 0 {
        return Err(StreamError::Malformed("the answer has no candidates".to_owned()));
    }
    for (choice, index, signature) in extras {
        let choice = answer.choices.iter_mut().find(|known| known.index == choice);
        if let Some(call) = choice.and_then(|choice| choice.tool_calls.get_mut(index as usize)) {
            call.rest.insert("extra_content".to_owned(), json!({"google": {"thought_signature": signature}}));
        }
    }
    let unknown = pieces.into_iter().filter_map(|piece| match piece {
        Piece::UnknownFinish { choice, word } => Some((choice, word)),
        _ => None,
    });
    complete::whole(answer, unknown.collect())
}

/// Decodes one stream.
#[derive(Default)]
pub(super) struct Decoder {
    started: bool,
    seen: Choices,
    calls: Calls,
    /// Choices that have had a part.
    spoke: Vec<u32>,
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
        read(event.data, "a chunk")?.into_iter().try_for_each(|wire| self.take(wire, out).map(drop))
    }
}

/// Choice, index of the call, and the signature that must be sent back with it.
type Signatures = Vec<(u32, u32, String)>;

impl Decoder {
    fn take(&mut self, wire: WireAnswer, out: &mut Vec<Piece>) -> Result<Signatures, StreamError> {
        if !self.started {
            self.started = true;
            let (id, model) = (wire.response_id.unwrap_or_default(), wire.model_version.unwrap_or_default());
            out.push(Piece::Start { id, model, created: None });
        }
        if let Some(usage) = wire.usage_metadata {
            out.push(Piece::Usage(usage.into_usage()));
        }
        let blocked = wire.prompt_feedback.is_some_and(|feedback| feedback.block_reason.is_some());
        if blocked && wire.candidates.is_empty() {
            // No answer will come, however many were requested.
            out.push(Piece::Finish { choice: 0, reason: Finish::ContentFilter });
            out.push(Piece::Done);
        }
        let mut signatures = Vec::new();
        for candidate in wire.candidates {
            self.candidate(candidate, out, &mut signatures)?;
        }
        Ok(signatures)
    }

    fn candidate(
        &mut self,
        candidate: WireCandidate,
        out: &mut Vec<Piece>,
        signatures: &mut Signatures,
    ) -> Result<(), StreamError> {
        let choice = candidate.index.unwrap_or(0);
        self.seen.see(choice)?;
        for part in candidate.content.into_iter().flat_map(|content| content.parts) {
            if !self.spoke.contains(&choice) {
                self.spoke.push(choice);
            }
            if let Some(call) = part.function_call {
                let arguments = call.args.filter(|args| !args.trim().is_empty()).unwrap_or_else(|| "{}".to_owned());
                let index = self.calls.begin(choice, call.id, call.name, arguments, out)?;
                if let (Some(Piece::ToolCall { id: Some(id), .. }), Some(signature)) =
                    (out.last_mut(), part.thought_signature.as_deref())
                {
                    *id = emulate::signed_call_id(id, Some(signature));
                }
                signatures.extend(part.thought_signature.map(|signature| (choice, index, signature)));
            } else if let Some(text) = part.text.filter(|text| !text.is_empty()) {
                out.push(if part.thought { Piece::Reasoning { choice, text } } else { Piece::Text { choice, text } });
            }
        }
        let word = candidate.finish_reason.as_deref();
        let called = self.calls.any(choice);
        // If Gemini stops without any part, it failed to answer: such a stop does not even mean that there is nothing
        // to say.
        if matches!(complete::reason(word, None)?, Reason::Known(Finish::Stop)) && !self.spoke.contains(&choice) {
            return Ok(());
        }
        complete::finish(choice, word, called, out)?;
        self.calls.check_end(choice, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::{Choice, ToolCall};
    use crate::types::JsonMap;

    #[test]
    fn a_call_without_id_gets_one() {
        let body = br#"{"responseId":"r-1","candidates":[{"content":{"parts":[{"functionCall":{"name":"f"}}]},"finishReason":"STOP"}]}"#;
        let again = answer(body).expect("answer");
        let answer = answer(body).expect("answer");
        let id = answer.choices[0].tool_calls[0].id.clone();
        assert!(!id.is_empty() && id != again.choices[0].tool_calls[0].id, "{id} names a call of another answer");
        let expected = ToolCall { id, name: "f".into(), arguments: "{}".into(), rest: JsonMap::new() };
        assert_eq!(
            answer.choices,
            [Choice { tool_calls: vec![expected], finish: Some(Finish::ToolCalls), ..Choice::default() }]
        );
    }

    #[test]
    fn members_in_snake_case_are_read() {
        let body = br#"{"candidates":[{"content":{"parts":[{"function_call":{"name":"f"},"thought_signature":"s"}]},
            "finish_reason":"STOP"}],"usage_metadata":{"prompt_token_count":5,"candidates_token_count":2}}"#;
        let answer = answer(body).expect("answer");
        assert_eq!(answer.choices[0].tool_calls[0].name, "f");
        assert_eq!((answer.choices[0].finish, answer.usage.input), (Some(Finish::ToolCalls), Some(5)));
    }

    #[test]
    fn chunks_in_a_list_are_one_answer() {
        let body = br#"[{"candidates":[{"content":{"parts":[{"text":"a"}]}}]},
            {"candidates":[{"content":{"parts":[{"text":"b"}]},"finishReason":"STOP"}]}]"#;
        assert_eq!(answer(body).expect("answer").text(), "ab");
    }
}
