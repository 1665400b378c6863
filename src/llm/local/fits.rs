//! Checks that the values of a method of the embedded provider match a schema.
//!
//! Knows no analysis. A method is tried on a few invented turns that contain what it looks for.

use std::sync::Arc;

use serde_json::Value;

use super::{Method, answer};
use crate::base::budget::Budget;
use crate::llm::schema::{CHECKING, Validator, Verdict};
use crate::llm::{ChatRequest, ResponseFormat};
use crate::types::{StreamId, Transcript, Turn};

/// Contains a reason for the call, a question with its answer, a promise and a mood.
const SAMPLE: [(&str, &str); 4] = [
    ("agent", "Thank you for calling. How can I help you?"),
    ("customer", "The bill still goes to my old address, and that is really annoying!"),
    ("agent", "I am sorry. I will send you a new bill tomorrow."),
    ("customer", "Wonderful, thank you so much for your help!"),
];

/// Returns true if the values of `method` are valid under `schema`, apart from members that the schema does not have.
pub fn fits(method: Method, schema: &Arc<Value>) -> bool {
    let turns = SAMPLE.iter().zip(0..).map(|((speaker, text), number)| {
        Arc::new(Turn {
            turn: number,
            stream_id: StreamId::mint(),
            turn_order: number,
            vendor_turn: None,
            rev: 0,
            speaker: Some((*speaker).to_owned()),
            text: (*text).to_owned(),
            start_ms: number * 4_000,
            end_ms: number * 4_000 + 3_000,
            language: None,
            confidence: None,
            words: Vec::new(),
        })
    });
    let format = ResponseFormat::JsonSchema { name: "sample".to_owned(), schema: Arc::clone(schema), strict: false };
    let request = ChatRequest { response_format: Some(format), ..ChatRequest::default() };
    let transcript = Transcript { turns: turns.collect() };
    let (Ok(answer), Ok(validator)) = (answer(Some(method), &request, Some(&transcript)), Validator::compile(schema))
    else {
        return false;
    };
    match validator.check(answer.text(), &mut Budget::new(CHECKING)) {
        Ok(verdict) => matches!(verdict, Verdict::Valid(..)),
        // A schema that is too complex to be checked says nothing about the method.
        Err(_) => true,
    }
}
