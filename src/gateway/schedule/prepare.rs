//! Prepares a request before a model is asked: applies the variant's parameters, validates it, inserts the
//! conversation.
//!
//! Knows no attempt. A failure here is an error of the request itself.

use std::sync::Arc;

use tokio::time::Instant;

use super::validators::Validators;
use crate::gateway::catalogue::resolved::Resolved;
use crate::gateway::error::GatewayError;
use crate::gateway::request::Request;
use crate::gateway::transcript;
use crate::llm::schema::Validator;
use crate::llm::{ChatRequest, ResponseFormat};

/// Assumed maximum length of an answer in tokens, if the request does not limit it.
const OUTPUT_TOKENS: u64 = 1024;

/// Applies the variant's parameters to a request and validates it; returns what its answer must match.
///
/// # Errors
/// `invalid_request` or `too_complex`, with the name of the invalid parameter.
///
/// # Cancel safety
/// Not safe: the request may be half prepared.
pub(super) async fn prepare(
    validators: &Validators,
    resolved: &Resolved,
    chat: &mut ChatRequest,
) -> Result<Option<Validator>, GatewayError> {
    chat.apply_params(&resolved.params)?;
    chat.check()?;
    match &chat.response_format {
        Some(ResponseFormat::JsonSchema { schema, .. }) => validators.get(schema).await.map(Some),
        _ => Ok(None),
    }
}

/// The time at which the request ends, whatever its progress.
pub(super) fn deadline(request: &Request) -> Instant {
    let total = request.resolved.timeouts.total;
    Instant::now() + request.deadline.map_or(total, |deadline| deadline.min(total))
}

/// Inserts the conversation into the prompt, as much of it as the model has room for, and gives it to the embedded
/// provider.
pub(super) fn insert_conversation(request: &mut Request) {
    let Some(conversation) = &request.conversation else { return };
    let (turns, text) = conversation.render(room(&request.resolved, &request.chat));
    transcript::insert(&mut request.chat, &text);
    request.transcript = Some(Arc::new(move || Arc::clone(&turns)));
}

/// Tokens that are left for a conversation beside the rest of the request; `None` if the model's context length is not
/// known.
fn room(resolved: &Resolved, chat: &ChatRequest) -> Option<usize> {
    let bytes: usize = chat.messages.iter().map(|message| message.content.plain().len()).sum();
    let context = resolved.context_length()?;
    let rest = (bytes / 3) as u64 + chat.max_tokens.unwrap_or(OUTPUT_TOKENS.min(context / 4)) + 64;
    // A token is assumed to be four bytes, which does not hold for every language: a quarter is left free.
    let left = context.saturating_sub(rest) / 4 * 3;
    usize::try_from(left).ok()
}
