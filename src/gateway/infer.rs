//! Whole answers: reads the stream to its end, validates the schema, and makes one repair round.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::{self, Opened};
use super::error::{Failure, GatewayError};
use super::live::Live;
use super::row::Row;
use super::run::{Asker, Reached, Run};
use super::{Answer, Arm, Delta, Deltas, Inner, MakeTranscript, price};
use crate::llm::schema::{self, Validator, Verdict};
use crate::llm::{ChatRequest, ChatResponse, Message, Piece, RequestError, ResponseFormat, Role, Usage, local};

/// A request, from a client or from the daemon itself.
pub(super) struct Question {
    pub(super) arm: Arc<Arm>,
    pub(super) request: ChatRequest,
    pub(super) transcript: Option<MakeTranscript>,
    pub(super) asker: Asker,
    pub(super) deltas: Option<Deltas>,
    pub(super) deadline: Option<Duration>,
}

impl Question {
    /// Applies the variant's parameters to the request and validates it; any later failure is a failure of an attempt.
    pub(super) async fn prepare(&mut self, inner: &Inner) -> Result<Option<Validator>, GatewayError> {
        prepare(inner, &self.arm, &mut self.request).await
    }

    /// Returns true if the next candidate must be asked although an answer arrived: an analysis has no use for an
    /// answer that the vendor withheld, in whole or in part. A client gets such an answer, with its `finish_reason`.
    fn moves_on(&self, response: &ChatResponse) -> bool {
        self.asker.analysis.is_some() && attempt::withheld(response)
    }

    pub(super) fn until(&self) -> Instant {
        let total = self.arm.clocks.total;
        Instant::now() + self.deadline.map_or(total, |deadline| deadline.min(total))
    }
}

/// Applies the variant's parameters to a request and validates it.
pub(super) async fn prepare(
    inner: &Inner,
    arm: &Arm,
    request: &mut ChatRequest,
) -> Result<Option<Validator>, GatewayError> {
    let invalid =
        |error: RequestError| GatewayError::new("invalid_request", error.message.clone()).with_param(error.param);
    request.apply_params(&arm.params).map_err(invalid)?;
    request.check().map_err(invalid)?;
    match &request.response_format {
        Some(ResponseFormat::JsonSchema { schema, .. }) => inner.validators.get(schema).await.map(Some),
        _ => Ok(None),
    }
}

/// One complete answer, before schema validation.
struct Got {
    response: ChatResponse,
    endpoint: Arc<str>,
    vendor_model: Arc<str>,
    first_token: Option<Duration>,
    degraded: bool,
}

/// Tokens and cost of all attempts of a request.
#[derive(Default)]
struct Bill {
    usage: Usage,
    /// Sum of the known costs, pico-dollars; `None` before the first.
    cost: Option<i64>,
    unknown: bool,
}

impl Bill {
    fn add(&mut self, usage: Usage, cost: Option<i64>) {
        self.usage.add(usage);
        match cost {
            Some(cost) => self.cost = Some(self.cost.unwrap_or(0).saturating_add(cost)),
            None => self.unknown = true,
        }
    }

    fn cost(&self) -> Option<i64> {
        self.cost.filter(|_| !self.unknown)
    }
}

/// Gets a whole answer. `request.stream` decides whether the vendor is asked for a stream. `answering` is set once a
/// vendor has begun to answer.
pub(super) async fn whole(
    inner: &Inner,
    mut question: Question,
    answering: Option<&AtomicBool>,
) -> Result<Answer, GatewayError> {
    let validator = question.prepare(inner).await?;
    let arm = Arc::clone(&question.arm);
    let mut run = Run::new(inner, &arm, question.asker.clone(), question.until(), &question.request, false, answering);
    let mut bill = Bill::default();
    let mut got = match complete(&mut run, &mut question, &mut bill).await {
        // An analysis continues with the embedded provider, which costs nothing, until the limit lifts; a client gets
        // the error.
        Err(error) if error.code() == "budget_exhausted" && question.asker.analysis.is_some() => {
            embedded(&mut question, &mut bill).await.map_err(|_| error)?
        }
        got => got?,
    };
    let mut text = got.response.text().to_owned();
    let mut value = None;
    // A refusal, a withheld answer and a tool call do not have to match the schema.
    let checked = !attempt::withheld(&got.response)
        && got.response.choices.first().is_none_or(|choice| choice.refusal.is_none() && choice.tool_calls.is_empty());
    if let Some(validator) = validator.filter(|_| checked) {
        let (said, verdict) = judge(inner, &mut run, &validator, text).await?;
        let valid = match verdict {
            Verdict::Valid(text, value) => (text, value),
            Verdict::Invalid(_) if got.degraded => return Err(mismatch(&mut run)),
            Verdict::Invalid(errors) => {
                run.mismatched();
                question.request.messages.push(Message::text(Role::Assistant, said));
                question.request.messages.push(Message::text(Role::User, schema::repair_request(&errors)));
                run.repair();
                got = complete(&mut run, &mut question, &mut bill).await?;
                match judge(inner, &mut run, &validator, got.response.text().to_owned()).await?.1 {
                    Verdict::Valid(text, value) => (text, value),
                    Verdict::Invalid(_) => {
                        if !got.degraded {
                            run.mismatched();
                        }
                        return Err(mismatch(&mut run));
                    }
                }
            }
        };
        text = valid.0;
        value = Some(valid.1);
        if let Some(choice) = got.response.choices.first_mut() {
            choice.text = Some(text.clone());
        }
    }
    Ok(Answer {
        text,
        value,
        response: got.response,
        endpoint: got.endpoint,
        model: Arc::clone(&arm.model),
        vendor_model: got.vendor_model,
        attempts: run.attempts,
        usage: bill.usage.into(),
        cost_usd: bill.cost().map(price::usd),
        degraded: got.degraded,
        first_token: got.first_token,
        waited: run.waited,
    })
}

/// Checks an answer against its schema. If the check is over a limit, the request fails without a repair round.
async fn judge(
    inner: &Inner,
    run: &mut Run<'_>,
    validator: &Validator,
    text: String,
) -> Result<(String, Verdict), GatewayError> {
    inner.validators.check(validator, text).await.map_err(|error| {
        let waited = run.waited;
        run.unchecked(&error);
        error.with_attempts(run.take_failures()).with_waited(waited)
    })
}

fn mismatch(run: &mut Run<'_>) -> GatewayError {
    let attempts = run.take_failures();
    GatewayError::new("schema_mismatch", "the answer is not valid under the schema, after one repair round too")
        .temporarily()
        .with_attempts(attempts)
        .with_waited(run.waited)
}

/// Asks until a whole answer has arrived; after a stream that broke off in the middle, the request is sent again from
/// its start.
async fn complete(run: &mut Run<'_>, question: &mut Question, bill: &mut Bill) -> Result<Got, GatewayError> {
    loop {
        match run.next(&question.request).await? {
            Reached::Local => {
                return embedded(question, bill).await;
            }
            Reached::Opened(Opened::Whole(response, row)) => {
                bill.add(response.usage, row.cost());
                if let Some(got) = at_once(run, *response, row, question) {
                    return Ok(got);
                }
            }
            Reached::Opened(Opened::Stream(mut live)) => {
                let drained = drain(&mut live, &mut question.deltas).await;
                run.waited += live.waited;
                let usage = live.usage();
                match drained {
                    Ok(response) if question.moves_on(&response) => {
                        let failure = filtered();
                        bill.add(usage, live.close(Some(&failure)));
                        run.broke(failure);
                    }
                    Ok(response) => {
                        bill.add(usage, live.close(None));
                        return Ok(Got {
                            response,
                            endpoint: Arc::clone(&live.remote.endpoint.name),
                            vendor_model: Arc::clone(&live.remote.vendor_model),
                            first_token: live.first_token,
                            degraded: false,
                        });
                    }
                    Err(failure) => {
                        bill.add(usage, live.close(Some(&failure)));
                        run.broke(failure);
                    }
                }
            }
        }
    }
}

fn filtered() -> Failure {
    Failure::request("content_filtered", "the vendor withheld the answer, or the rest of it")
}

fn at_once(run: &mut Run<'_>, response: ChatResponse, row: Box<Row>, question: &mut Question) -> Option<Got> {
    if question.moves_on(&response) {
        let failure = filtered();
        row.fail(&failure);
        run.broke(failure);
        return None;
    }
    row.succeed();
    if let Some(deltas) = &mut question.deltas {
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

async fn embedded(question: &mut Question, bill: &mut Bill) -> Result<Got, GatewayError> {
    let response = ask_embedded(&question.request, &question.asker, question.transcript.clone()).await?;
    bill.add(response.usage, Some(0));
    let local: Arc<str> = Arc::from("local");
    Ok(Got { response, endpoint: Arc::clone(&local), vendor_model: local, first_token: None, degraded: true })
}

/// Asks the embedded provider on a blocking thread, off the runtime's own threads.
pub(super) async fn ask_embedded(
    request: &ChatRequest,
    asker: &Asker,
    transcript: Option<MakeTranscript>,
) -> Result<ChatResponse, GatewayError> {
    let (task, request) = (asker.analysis.clone(), request.clone());
    let answered = tokio::task::spawn_blocking(move || {
        let transcript = transcript.map(|make| make());
        local::answer(task.as_deref(), &request, transcript.as_deref())
    })
    .await;
    match answered {
        Ok(answer) => answer.map_err(|error| GatewayError::new("unsupported", error.to_string())),
        Err(_) => Err(GatewayError::new("upstream_error", "the embedded provider failed").temporarily()),
    }
}
