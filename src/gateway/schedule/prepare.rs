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
use crate::llm::{ChatRequest, ResponseFormat, tokens};

/// Tokens that are left free between a conversation and the rest of its prompt.
const MARGIN: u64 = 64;

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

/// Inserts the conversation into the prompt, as much of it as fits the model's context, and gives it to the embedded
/// provider.
pub(super) fn insert_conversation(request: &mut Request) {
    let Some(conversation) = &request.conversation else { return };
    // The text around the conversation takes some tokens too.
    let rest = tokens::prompt(&request.chat).saturating_add(MARGIN);
    let (turns, text) = conversation.render(request.resolved.fit(request.chat.max_tokens, rest));
    transcript::insert(&mut request.chat, &text);
    request.transcript = Some(Arc::new(move || Arc::clone(&turns)));
}
