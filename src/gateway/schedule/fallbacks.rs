//! The models of one request, one after the other: the caller's own choice, then its fallbacks.
//!
//! Knows no attempt and no candidate: each model is asked as a whole.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::prepare::{insert_conversation, prepare};
use super::shared::Shared;
use super::stream::{self, Stream};
use super::{complete, repair};
use crate::gateway::answer::Answer;
use crate::gateway::catalogue::names::Catalogue;
use crate::gateway::catalogue::resolved::Resolved;
use crate::gateway::code::Code;
use crate::gateway::error::GatewayError;
use crate::gateway::request::{Fallback, Request};
use crate::gateway::transcript;
use crate::llm::ChatRequest;

/// Gets a whole answer from the first model that gives one.
///
/// # Errors
/// No model gave a usable answer; the error is that of the last one, with the attempts of all.
///
/// # Cancel safety
/// Dropping the future aborts the attempt in progress.
pub(in crate::gateway) async fn complete(
    shared: &Shared,
    catalogue: &Catalogue,
    request: Request,
) -> Result<Answer, GatewayError> {
    let mut models = Models::new(shared, catalogue, request).await?;
    while models.next() {
        match complete::whole(shared, &mut models.request, None).await {
            Ok(mut answer) => {
                answer.provenance.attempts += models.made();
                answer.waited += models.waited();
                if !models.request.repair_json {
                    return Ok(answer);
                }
                return repair::repair(answer).await.map_err(|error| models.with_earlier_attempts(error));
            }
            Err(error) => models.failed(error)?,
        }
    }
    Err(models.error())
}

/// Opens a stream at the first model that begins to answer. `answering` is set once a vendor has sent a successful
/// response header.
///
/// # Errors
/// As [`complete`].
///
/// # Cancel safety
/// As [`complete`].
pub(in crate::gateway) async fn open(
    shared: &Shared,
    catalogue: &Catalogue,
    mut request: Request,
    answering: &AtomicBool,
) -> Result<Stream, GatewayError> {
    request.chat.stream = true;
    let mut models = Models::new(shared, catalogue, request).await?;
    while models.next() {
        match stream::open(shared, &mut models.request, answering).await {
            Ok(mut stream) => {
                stream.provenance.attempts += models.made();
                stream.waited += models.waited();
                return Ok(stream);
            }
            Err(error) => models.failed(error)?,
        }
    }
    Err(models.error())
}

/// A fallback that is known to be valid.
struct Next {
    name: Arc<str>,
    resolved: Arc<Resolved>,
    chat: ChatRequest,
}

/// The models of a request, and the errors of those that failed.
struct Models {
    /// The request at the model that is asked now.
    request: Request,
    /// True until the caller's own choice was asked.
    fresh: bool,
    next: VecDeque<Next>,
    /// The errors of the models that failed.
    errors: Vec<GatewayError>,
    deadline: Option<Duration>,
    began: Instant,
}

impl Models {
    async fn new(shared: &Shared, catalogue: &Catalogue, mut request: Request) -> Result<Self, GatewayError> {
        let began = Instant::now();
        let mut next = VecDeque::new();
        for (position, fallback) in std::mem::take(&mut request.fallbacks).into_iter().enumerate() {
            let (model, mut checked) = read(catalogue, &request, fallback)?;
            let valid = prepare(&shared.validators, &model.resolved, &mut checked).await;
            valid.map_err(|error| in_fallback(position, &error))?;
            next.push_back(model);
        }
        let deadline = request.deadline;
        Ok(Self { request, fresh: true, next, errors: Vec::new(), deadline, began })
    }

    /// Moves on to the next model. Returns false if none is left.
    fn next(&mut self) -> bool {
        if !std::mem::take(&mut self.fresh) {
            let Some(Next { name, resolved, chat }) = self.next.pop_front() else { return false };
            self.request.name = name;
            self.request.resolved = resolved;
            self.request.chat = chat;
        }
        self.request.deadline = self.deadline.map(|deadline| deadline.saturating_sub(self.began.elapsed()));
        insert_conversation(&mut self.request);
        true
    }

    /// Notes that the model gave no answer.
    ///
    /// # Errors
    /// The fault is the request's own, so that no other model can help.
    fn failed(&mut self, error: GatewayError) -> Result<(), GatewayError> {
        let own_fault = matches!(error.code(), Code::InvalidRequest | Code::TooComplex | Code::BudgetExhausted);
        if own_fault && error.attempts().is_empty() {
            return Err(self.with_earlier_attempts(error));
        }
        self.errors.push(error);
        Ok(())
    }

    /// Number of HTTP requests to the models that failed.
    fn made(&self) -> u32 {
        let attempts = self.errors.iter().flat_map(GatewayError::attempts);
        u32::try_from(attempts.filter(|attempt| attempt.why.is_some()).count()).unwrap_or(u32::MAX)
    }

    /// Time spent waiting at the models that failed.
    fn waited(&self) -> Duration {
        self.errors.iter().map(GatewayError::waited).sum()
    }

    fn with_earlier_attempts(&self, error: GatewayError) -> GatewayError {
        if self.errors.is_empty() {
            return error;
        }
        let all = self.errors.iter().chain([&error]).flat_map(GatewayError::attempts).cloned().collect();
        error.with_attempts(all)
    }

    /// The error once all models have failed.
    fn error(mut self) -> GatewayError {
        match self.errors.pop() {
            Some(last) => self.with_earlier_attempts(last),
            None => GatewayError::new(Code::InvalidRequest, "the request and its fallbacks name no model"),
        }
    }
}

/// Reads a fallback: the request with its differences applied, and the model behind its name. Also makes the request
/// that must be valid before anything is asked.
fn read(catalogue: &Catalogue, request: &Request, fallback: Fallback) -> Result<(Next, ChatRequest), GatewayError> {
    let mut chat = request.chat.clone();
    fallback.apply(&mut chat)?;
    let resolved = catalogue.resolve(&fallback.model, &request.sticky_key)?;
    let mut checked = chat.clone();
    if request.conversation.is_some() {
        // The text does not matter here, but the conversation may be the only message of the request.
        transcript::insert(&mut checked, "");
    }
    Ok((Next { name: Arc::from(fallback.model), resolved, chat }, checked))
}

/// The error of an invalid fallback, with its position.
fn in_fallback(position: usize, error: &GatewayError) -> GatewayError {
    let param = format!("fallbacks[{position}].{}", error.param().unwrap_or_default());
    let message = format!("fallbacks[{position}]: {}", error.message());
    let code = if error.code() == Code::TooComplex { Code::TooComplex } else { Code::InvalidRequest };
    GatewayError::new(code, message).with_param(Some(param.trim_end_matches('.').to_owned()))
}

impl Fallback {
    /// Applies its differences to the caller's request; all other fields are inherited.
    fn apply(&self, chat: &mut ChatRequest) -> Result<(), GatewayError> {
        let mut overrides = self.overrides.clone();
        if let Some(messages) = overrides.remove("messages") {
            let body = serde_json::json!({ "messages": messages }).to_string();
            let (given, _) = ChatRequest::from_json(body.as_bytes())?;
            chat.messages = given.messages;
        }
        Ok(chat.apply_params(&overrides)?)
    }
}
