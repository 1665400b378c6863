//! Whole answers: the stream read to its end, the schema kept, one repair round.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::time::Instant;

use super::attempt::{self, Live, Opened, Row};
use super::error::{Failure, GatewayError};
use super::run::{Asker, Reached, Run};
use super::{Answer, Arm, Ask, Delta, Deltas, Inner};
use crate::llm::schema::{self, Validator, Verdict};
use crate::llm::{ChatRequest, ChatResponse, Message, Piece, ResponseFormat, Role, Usage, local};

/// Most compiled schemas that are kept.
const MAX_VALIDATORS: usize = 256;

/// Compiled schemas, by the schema itself.
#[derive(Default)]
pub(super) struct Validators(Mutex<HashMap<u64, (Arc<Value>, Validator)>>);

impl Validators {
    pub(super) fn get(&self, schema: &Arc<Value>) -> Result<Validator, GatewayError> {
        let mut hasher = DefaultHasher::new();
        schema.hash(&mut hasher);
        let hash = hasher.finish();
        let known = |cache: &HashMap<u64, (Arc<Value>, Validator)>| {
            cache.get(&hash).filter(|(known, _)| Arc::ptr_eq(known, schema) || known == schema).map(|(_, v)| v.clone())
        };
        if let Some(validator) = known(&self.lock()) {
            return Ok(validator);
        }
        let validator = Validator::compile(schema).map_err(|error| {
            GatewayError::new("invalid_request", format!("response_format: {error}"))
                .with_param(Some("response_format".to_owned()))
        })?;
        let mut cache = self.lock();
        if cache.len() >= MAX_VALIDATORS {
            cache.clear();
        }
        cache.insert(hash, (Arc::clone(schema), validator.clone()));
        Ok(validator)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (Arc<Value>, Validator)>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// One complete answer, before its schema is looked at.
struct Got {
    response: ChatResponse,
    endpoint: Arc<str>,
    vendor_model: Arc<str>,
    first_token: Option<std::time::Duration>,
    degraded: bool,
}

pub(super) async fn infer(inner: &Inner, mut ask: Ask) -> Result<Answer, GatewayError> {
    let arm = Arc::clone(&ask.arm);
    ask.request
        .apply_params(&arm.params)
        .map_err(|error| GatewayError::new("invalid_request", error.message.clone()).with_param(error.param))?;
    ask.request.stream = true;
    ask.request.include_usage = true;
    let validator = match &ask.request.response_format {
        Some(ResponseFormat::JsonSchema { schema, .. }) => Some(inner.validators.get(schema)?),
        _ => None,
    };
    let limit = ask.deadline.map_or(arm.clocks.total, |deadline| deadline.min(arm.clocks.total));
    let deadline = Instant::now() + limit;
    let asker = Asker { key: None, call: ask.call.clone(), analysis: ask.task.clone() };
    let mut run = Run::new(inner, &arm, asker, deadline, false);
    let mut usage = Usage::default();
    let mut got = complete(&mut run, &mut ask, &mut usage).await?;
    let mut text = got.response.text().to_owned();
    if let Some(validator) = validator {
        text = match validator.check(&text) {
            Verdict::Valid(text) => text,
            Verdict::Invalid(_) if got.degraded => return Err(mismatch(&mut run)),
            Verdict::Invalid(errors) => {
                ask.request.messages.push(Message::text(Role::Assistant, text));
                ask.request.messages.push(Message::text(Role::User, schema::repair_request(&errors)));
                run.repair();
                got = complete(&mut run, &mut ask, &mut usage).await?;
                match validator.check(got.response.text()) {
                    Verdict::Valid(text) => text,
                    Verdict::Invalid(_) => return Err(mismatch(&mut run)),
                }
            }
        };
    }
    Ok(answer(&arm, got, text, run.attempts, usage))
}

fn answer(arm: &Arm, got: Got, text: String, attempts: u32, usage: Usage) -> Answer {
    Answer {
        text,
        response: got.response,
        endpoint: got.endpoint,
        model: Arc::clone(&arm.model),
        vendor_model: got.vendor_model,
        attempts,
        usage: usage.into(),
        cost_usd: got.degraded.then_some(0.0),
        degraded: got.degraded,
        first_token: got.first_token,
    }
}

fn mismatch(run: &mut Run<'_>) -> GatewayError {
    let attempts = run.take_failures();
    GatewayError::new("schema_mismatch", "the answer is not valid under the schema, after one repair round too")
        .temporarily()
        .with_attempts(attempts)
}

/// Asks until a whole answer is there; what breaks off in the middle is asked anew.
async fn complete(run: &mut Run<'_>, ask: &mut Ask, usage: &mut Usage) -> Result<Got, GatewayError> {
    loop {
        match run.next(&ask.request).await? {
            Reached::Local => return embedded(ask).await,
            Reached::Opened(Opened::Whole(response, row)) => {
                usage.add(response.usage);
                if let Some(got) = whole(run, *response, *row, ask) {
                    return Ok(got);
                }
            }
            Reached::Opened(Opened::Stream(mut live)) => {
                let drained = drain(&mut live, &mut ask.deltas).await;
                usage.add(live.usage());
                match drained {
                    Ok(response) if attempt::withheld(&response) => {
                        let failure = filtered();
                        live.close(Some(&failure));
                        run.broke(failure);
                    }
                    Ok(response) => {
                        live.close(None);
                        return Ok(Got {
                            response,
                            endpoint: Arc::clone(&live.remote.endpoint.name),
                            vendor_model: Arc::clone(&live.remote.vendor_model),
                            first_token: live.first_token,
                            degraded: false,
                        });
                    }
                    Err(failure) => {
                        live.close(Some(&failure));
                        run.broke(failure);
                    }
                }
            }
        }
    }
}

fn filtered() -> Failure {
    Failure::request("content_filtered", "the vendor withheld the whole answer")
}

fn whole(run: &mut Run<'_>, response: ChatResponse, row: Row, ask: &mut Ask) -> Option<Got> {
    if attempt::withheld(&response) {
        let failure = filtered();
        row.fail(&failure);
        run.broke(failure);
        return None;
    }
    row.succeed();
    if let Some(deltas) = &mut ask.deltas {
        deltas(Delta { offset: 0, text: response.text() });
    }
    let (endpoint, vendor_model) = run.current()?;
    Some(Got { response, endpoint, vendor_model, first_token: None, degraded: false })
}

async fn drain(live: &mut Live, deltas: &mut Option<Deltas>) -> Result<ChatResponse, Failure> {
    let mut response = ChatResponse::default();
    let mut frames = Vec::new();
    let mut offset = 0u64;
    while live.next(&mut frames).await? {
        for piece in frames.drain(..).flat_map(|frame| frame.pieces) {
            response.absorb(&piece);
            if let (Some(deltas), Piece::Text { choice: 0, text }) = (deltas.as_mut(), &piece) {
                deltas(Delta { offset, text });
                offset += text.chars().count() as u64;
            }
        }
    }
    Ok(response)
}

async fn embedded(ask: &mut Ask) -> Result<Got, GatewayError> {
    let (task, transcript) = (ask.task.clone(), ask.transcript.clone());
    let request: ChatRequest = ask.request.clone();
    let answered =
        tokio::task::spawn_blocking(move || local::answer(task.as_deref(), &request, transcript.as_deref())).await;
    let answer = match answered {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(GatewayError::new("unsupported", error.to_string())),
        Err(_) => return Err(GatewayError::new("upstream_error", "the embedded provider failed").temporarily()),
    };
    let mut response = ChatResponse { model: "local".to_owned(), ..ChatResponse::default() };
    response.absorb(&Piece::Text { choice: 0, text: answer.text });
    response.absorb(&Piece::Finish { choice: 0, reason: crate::llm::Finish::Stop });
    let local: Arc<str> = Arc::from("local");
    Ok(Got { response, endpoint: Arc::clone(&local), vendor_model: local, first_token: None, degraded: true })
}
