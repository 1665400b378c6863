//! Whole answers of one model: reads the stream to its end, validates the schema, and makes one repair round.
//!
//! Knows no fallback and no candidate: `next` decides which one is asked.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::embedded;
use super::next::Reached;
use super::parts::{self, Parts};
use super::prepare::{deadline, prepare};
use super::run::Run;
use super::shared::Shared;
use crate::gateway::answer::{Answer, Delta, Deltas, Provenance};
use crate::gateway::attempt::opened::Opened;
use crate::gateway::attempt::record::AttemptRecord;
use crate::gateway::attempt::stream::AttemptStream;
use crate::gateway::code::Code;
use crate::gateway::error::{Failure, GatewayError};
use crate::gateway::exchanges::{Answered, Exchange, Exchanges, Failed, Outcome, micros};
use crate::gateway::price;
use crate::gateway::request::Request;
use crate::llm::schema::{Validator, Verdict};
use crate::llm::{ChatResponse, Finish, Message, Piece, Role, Usage};

/// One complete answer, before schema validation.
struct Response {
    chat: ChatResponse,
    endpoint: Arc<str>,
    vendor_model: Arc<str>,
    first_token: Option<Duration>,
    degraded: bool,
}

/// Tokens and cost of all attempts of a request.
#[derive(Default)]
struct Cost {
    usage: Usage,
    /// Sum of the known costs, pico-dollars; `None` before the first.
    known: Option<i64>,
    unknown: bool,
}

impl Cost {
    fn add(&mut self, usage: Usage, cost: Option<i64>) {
        self.usage.add(usage);
        match cost {
            Some(cost) => self.known = Some(self.known.unwrap_or(0).saturating_add(cost)),
            None => self.unknown = true,
        }
    }

    /// Pico-dollars; `None` if the cost of any attempt is unknown.
    fn total(&self) -> Option<i64> {
        self.known.filter(|_| !self.unknown)
    }
}

/// Gets a whole answer of the request's model. `answering` is set once a vendor has sent a successful response header.
pub(super) async fn whole(
    shared: &Shared,
    request: &mut Request,
    answering: Option<&AtomicBool>,
) -> Result<Answer, GatewayError> {
    let resolved = Arc::clone(&request.resolved);
    let validator = prepare(&shared.validators, &resolved, &mut request.chat).await?;
    let mut run = Run::new(shared, &resolved, request, deadline(request), false, answering);
    let mut cost = Cost::default();
    let mut got = match ask(&mut run, request, &mut cost).await {
        // An analysis continues with the embedded provider, which costs nothing, until the limit lifts; a client gets
        // the error.
        Err(error) if error.code() == Code::BudgetExhausted && request.origin.analysis.is_some() => {
            ask_embedded(request, &mut cost).await.map_err(|_| error)?
        }
        got => got?,
    };
    let mut text = got.chat.text().to_owned();
    let mut value = None;
    // A refusal, a withheld answer and a tool call do not have to match the schema.
    let checked = !withheld(&got.chat)
        && got.chat.choices.first().is_none_or(|choice| choice.refusal.is_none() && choice.tool_calls.is_empty());
    if let Some(validator) = validator.filter(|_| checked) {
        let mut parts = Parts::of(request);
        let (said, verdict) = judge(&mut run, &validator, &mut parts, text).await?;
        let valid = match verdict {
            Verdict::Valid(text, value) => (text, value),
            Verdict::Invalid(_) if got.degraded => parts.taken().ok_or_else(|| mismatch(&mut run))?,
            Verdict::Invalid(errors) => {
                run.mismatched();
                request.chat.messages.push(Message::text(Role::Assistant, said));
                request.chat.messages.push(Message::text(Role::User, parts.repair_request(&errors)));
                run.repair();
                match ask(&mut run, request, &mut cost).await {
                    Ok(again) => {
                        got = again;
                        match judge(&mut run, &validator, &mut parts, got.chat.text().to_owned()).await?.1 {
                            Verdict::Valid(text, value) => (text, value),
                            Verdict::Invalid(_) => {
                                if !got.degraded {
                                    run.mismatched();
                                }
                                parts.taken().ok_or_else(|| mismatch(&mut run))?
                            }
                        }
                    }
                    Err(error) => parts.taken().ok_or(error)?,
                }
            }
        };
        text = valid.0;
        value = Some(valid.1);
        if let Some(choice) = got.chat.choices.first_mut() {
            choice.text = Some(text.clone());
        }
    }
    Ok(Answer {
        text,
        value,
        response: got.chat,
        provenance: Provenance {
            name: Arc::clone(&request.name),
            route: Arc::clone(&resolved.route),
            variant: Arc::clone(&resolved.variant),
            model: Arc::clone(&resolved.model),
            endpoint: got.endpoint,
            vendor_model: got.vendor_model,
            attempts: run.attempts,
        },
        usage: cost.usage.into(),
        cost_usd: cost.total().map(price::usd),
        degraded: got.degraded,
        first_token: got.first_token,
        waited: run.waited,
    })
}

/// Checks an answer against its schema. If the check is over a limit, the request fails without a repair round.
async fn judge(
    run: &mut Run<'_>,
    validator: &Validator,
    parts: &mut Parts,
    text: String,
) -> Result<(String, Verdict), GatewayError> {
    let validators = &run.shared.validators;
    let judged = if parts.is_empty() {
        validators.check(validator, text).await
    } else {
        parts.judge(validators, validator, text).await
    };
    judged.map_err(|error| {
        let waited = run.waited;
        run.unchecked(&error);
        error.with_attempts(run.take_failures()).with_waited(waited)
    })
}

fn mismatch(run: &mut Run<'_>) -> GatewayError {
    let attempts = run.take_failures();
    GatewayError::new(Code::SchemaMismatch, "the answer is not valid under the schema, after one repair round too")
        .temporarily()
        .with_attempts(attempts)
        .with_waited(run.waited)
}

/// Asks the model. If calls are not live, the answer may come from the stored exchanges.
async fn ask(run: &mut Run<'_>, request: &mut Request, cost: &mut Cost) -> Result<Response, GatewayError> {
    let shared = run.shared;
    match &shared.exchanges {
        Some(exchanges) if !run.resolved.local() => Box::pin(exchange(exchanges, run, request, cost)).await,
        _ => complete(run, request, cost).await,
    }
}

/// Answers a request from the stored exchanges, or asks and stores the result. Both give the same response.
async fn exchange(
    exchanges: &Exchanges,
    run: &mut Run<'_>,
    request: &mut Request,
    cost: &mut Cost,
) -> Result<Response, GatewayError> {
    let (asked, position) = exchanges.asked(&run.origin, run.resolved, &request.chat)?;
    let exchange = match exchanges.find(&asked, position)? {
        Some(known) => known,
        None => {
            let (attempts, waited) = (run.attempts, run.waited);
            let mut own = Cost::default();
            let got = complete(run, request, &mut own).await;
            let first_token = got.as_ref().ok().and_then(|got| got.first_token);
            let outcome = match &got {
                Ok(got) if got.degraded => Outcome::Embedded,
                Ok(got) => Outcome::Answer(Answered::new(&got.chat, &got.endpoint, &got.vendor_model)),
                Err(error) => Outcome::Error(Failed::new(error)),
            };
            let made = Exchange {
                outcome,
                attempts: run.attempts - attempts,
                usage: own.usage,
                cost_pico: if own.unknown { None } else { Some(own.known.unwrap_or(0)) },
                waited_us: micros(run.waited.saturating_sub(waited)),
                first_token_us: first_token.map(micros),
            };
            (run.attempts, run.waited) = (attempts, waited);
            exchanges.record(&asked, position, made)?
        }
    };
    run.attempts += exchange.attempts;
    run.waited += Duration::from_micros(exchange.waited_us);
    cost.add(exchange.usage, exchange.cost_pico);
    match exchange.outcome {
        Outcome::Answer(answered) => Ok(Response {
            chat: answered.chat(exchange.usage),
            endpoint: Arc::from(answered.endpoint),
            vendor_model: Arc::from(answered.vendor_model),
            first_token: exchange.first_token_us.map(Duration::from_micros),
            degraded: false,
        }),
        Outcome::Embedded => ask_embedded(request, cost).await,
        Outcome::Error(failed) => Err(failed.error().with_waited(run.waited)),
    }
}

/// Asks until a whole answer has arrived; after a stream that broke off in the middle, the request is sent again from
/// its start.
async fn complete(run: &mut Run<'_>, request: &mut Request, cost: &mut Cost) -> Result<Response, GatewayError> {
    loop {
        match run.next(&request.chat).await? {
            Reached::Local => return ask_embedded(request, cost).await,
            Reached::Opened(Opened::Whole(chat, mut record)) => {
                record.weigh(&parts::weights(&request.parts, chat.text()));
                cost.add(chat.usage, record.cost());
                if let Some(got) = at_once(run, *chat, record, request) {
                    return Ok(got);
                }
            }
            Reached::Opened(Opened::Stream(mut stream)) => {
                let drained = drain(&mut stream, &mut request.deltas).await;
                run.waited += stream.waited;
                let usage = stream.usage();
                match drained {
                    Ok(chat) if moves_on(request, &chat) => {
                        let failure = filtered();
                        cost.add(usage, stream.close(Some(&failure)));
                        run.broke(failure);
                    }
                    Ok(chat) => {
                        if let Some(record) = &mut stream.record {
                            record.weigh(&parts::weights(&request.parts, chat.text()));
                        }
                        cost.add(usage, stream.close(None));
                        return Ok(Response {
                            chat,
                            endpoint: Arc::clone(&stream.remote.endpoint.name),
                            vendor_model: Arc::clone(&stream.remote.vendor_model),
                            first_token: stream.first_token,
                            degraded: false,
                        });
                    }
                    Err(failure) => {
                        cost.add(usage, stream.close(Some(&failure)));
                        run.broke(failure);
                    }
                }
            }
        }
    }
}

/// Returns true if the next candidate must be asked although an answer arrived: an analysis has no use for an answer that
/// the vendor withheld, in whole or in part. A client gets such an answer, with its `finish_reason`.
fn moves_on(request: &Request, chat: &ChatResponse) -> bool {
    request.origin.analysis.is_some() && withheld(chat)
}

fn filtered() -> Failure {
    Failure::request(Code::ContentFiltered, "the vendor withheld the answer or a part of it")
}

fn at_once(
    run: &mut Run<'_>,
    chat: ChatResponse,
    record: Box<AttemptRecord>,
    request: &mut Request,
) -> Option<Response> {
    if moves_on(request, &chat) {
        let failure = filtered();
        record.fail(&failure);
        run.broke(failure);
        return None;
    }
    record.succeed();
    if let Some(deltas) = &mut request.deltas {
        deltas(Delta { offset: 0, text: chat.text() });
    }
    let (endpoint, vendor_model) = run.current()?;
    Some(Response { chat, endpoint, vendor_model, first_token: None, degraded: false })
}

async fn drain(stream: &mut AttemptStream, deltas: &mut Option<Deltas>) -> Result<ChatResponse, Failure> {
    let mut response = ChatResponse::default();
    let mut frames = Vec::new();
    let mut offset = 0u64;
    while stream.next(&mut frames).await? {
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

async fn ask_embedded(request: &mut Request, cost: &mut Cost) -> Result<Response, GatewayError> {
    let chat = embedded::ask(request).await?;
    cost.add(chat.usage, Some(0));
    let local = embedded::name();
    Ok(Response { chat, endpoint: Arc::clone(&local), vendor_model: local, first_token: None, degraded: true })
}

/// Returns true if the vendor's content filter withheld the answer or the rest of it; false for a refusal or a tool
/// call.
fn withheld(response: &ChatResponse) -> bool {
    response.choices.first().is_some_and(|choice| {
        choice.finish == Some(Finish::ContentFilter) && choice.refusal.is_none() && choice.tool_calls.is_empty()
    })
}
