//! Answers to several analyses at once: an object with a member for each, each answered by itself.

use serde_json::{Map, Value};

use super::form::fitted;
use super::{LocalError, Method, response, schema_of, spoken, value};
use crate::llm::{ChatRequest, ChatResponse};
use crate::types::Transcript;

/// Answers each of `asked`, members of the request's schema, by its method. One without a method is left out; members of the
/// schema that are not asked are null.
///
/// # Errors
/// None of them has a method, or there is no transcript with text.
pub fn answer_parts(
    asked: &[(&str, Option<Method>)],
    request: &ChatRequest,
    transcript: Option<&Transcript>,
) -> Result<ChatResponse, LocalError> {
    if asked.iter().all(|(_, method)| method.is_none()) {
        let names: Vec<&str> = asked.iter().map(|(member, _)| *member).collect();
        return Err(LocalError::Unsupported(names.join(", ")));
    }
    let (turns, newest) = spoken(transcript)?;
    let members = schema_of(request).and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    let mut answer = Map::new();
    for (member, schema) in members.into_iter().flatten() {
        match asked.iter().find(|(asked, _)| asked == member) {
            Some((_, Some(method))) => {
                // The schema of the member's value, without the alternative null.
                let own = schema.pointer("/anyOf/0").unwrap_or(schema);
                answer.insert(member.clone(), fitted(value(*method, &turns, newest), Some(own)));
            }
            Some((_, None)) => {}
            None => drop(answer.insert(member.clone(), Value::Null)),
        }
    }
    Ok(response(Value::Object(answer).to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::llm::ResponseFormat;
    use crate::types::{StreamId, Turn};

    #[test]
    fn each_member_is_answered_by_its_method() {
        let turn = Turn {
            turn: 0,
            stream_id: StreamId::parse("s_1").expect("id"),
            turn_order: 0,
            vendor_turn: None,
            rev: 0,
            speaker: Some("A".to_owned()),
            text: "This is wonderful, thank you.".to_owned(),
            start_ms: 0,
            end_ms: 900,
            language: None,
            confidence: None,
            words: Vec::new(),
        };
        let transcript = Transcript { turns: vec![Arc::new(turn)] };
        let label = json!({"properties": {"label": {}}, "additionalProperties": false});
        let member = json!({"anyOf": [label, {"type": "null"}]});
        let schema = Arc::new(json!({"properties": {"mood": member, "other": member, "idle": member}}));
        let response_format = Some(ResponseFormat::JsonSchema { name: "answers".to_owned(), schema, strict: true });
        let request = ChatRequest { response_format, ..ChatRequest::default() };
        let asked = [("mood", Some(Method::Mood)), ("other", None)];
        let answer = answer_parts(&asked, &request, Some(&transcript)).expect("an answer");
        let answer: Value = serde_json::from_str(answer.text()).expect("JSON");
        assert_eq!(answer, json!({"mood": {"label": "positive"}, "idle": null}));
        let error = answer_parts(&asked[1..], &request, Some(&transcript)).expect_err("no method");
        assert_eq!(error, LocalError::Unsupported("other".to_owned()));
        assert_eq!(answer_parts(&asked, &request, None).expect_err("nothing said"), LocalError::NoTranscript);
    }
}
