//! AssemblyAI's `json-repair`: makes the texts and the tools' arguments of an answer valid JSON.
//!
//! Knows no schema: see `complete` for the round that asks the model again.

use std::sync::Arc;

use crate::base::budget;
use crate::gateway::answer::Answer;
use crate::gateway::code::Code;
use crate::gateway::error::{AttemptFailure, GatewayError};
use crate::llm::Choice;
use crate::llm::repair::{self, REPAIRING};

/// Repairs an answer.
///
/// # Errors
/// `schema_mismatch` if it cannot be repaired without guessing; `too_complex` if that would take too much work.
///
/// # Cancel safety
/// Not safe: the answer is lost.
pub(super) async fn repair(mut answer: Answer) -> Result<Answer, GatewayError> {
    let texts = |choice: &Choice| {
        let arguments: u64 = choice.tool_calls.iter().map(|call| repair::work(&call.arguments)).sum();
        choice.text.as_deref().map_or(0, repair::work) + arguments
    };
    let work = answer.response.choices.iter().map(texts).sum();
    let (endpoint, model) = (Arc::clone(&answer.provenance.endpoint), Arc::clone(&answer.provenance.vendor_model));
    let repaired = budget::run(work, REPAIRING, move |budget| {
        for choice in &mut answer.response.choices {
            let texts = choice.text.iter_mut().chain(choice.tool_calls.iter_mut().map(|call| &mut call.arguments));
            for text in texts.filter(|text| !text.is_empty()) {
                match repair::parse(text, budget)? {
                    Some((_, true)) => {}
                    Some((value, false)) => *text = value.to_string(),
                    None => return Ok(None),
                }
            }
        }
        Ok(Some(answer))
    });
    let mismatch = AttemptFailure::mismatch(endpoint, model, None);
    match repaired.await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => {
            let message = "json-repair: the answer cannot be converted to JSON without guessing";
            Err(GatewayError::new(Code::SchemaMismatch, message).with_attempts(vec![mismatch]))
        }
        Err(exceeded) => {
            let (code, message) = (Code::from(exceeded), format!("json-repair: the answer is {exceeded}"));
            let failure = AttemptFailure { code, message: message.clone(), ..mismatch };
            Err(GatewayError::new(code, message).with_attempts(vec![failure]))
        }
    }
}
