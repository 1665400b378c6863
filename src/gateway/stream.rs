//! Streams for clients: frames as they arrive, after the commit point.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::Value;

use super::attempt::Opened;
use super::error::{Failure, GatewayError};
use super::infer::{self, Question, ask_embedded};
use super::live::{Frame, Live};
use super::row::Row;
use super::run::{Reached, Run};
use super::validators::Validators;
use super::{Answer, Arm, AttemptFailure, Inner, price};
use crate::llm::schema::{Validator, Verdict};
use crate::llm::{ChatResponse, Finish, Piece, THINKING_BLOCKS, Usage};

/// Where the answer of a stream comes from.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// The route that was asked.
    pub route: Arc<str>,
    /// The variant of the route.
    pub variant: Arc<str>,
    /// The logical model.
    pub model: Arc<str>,
    /// The endpoint; `local` for the embedded provider.
    pub endpoint: Arc<str>,
    /// The vendor's name for the model.
    pub vendor_model: Arc<str>,
    /// Number of HTTP calls made; 0 if only the embedded provider was asked.
    pub attempts: u32,
}

/// A stream past its commit point. Dropping it in the middle aborts the request upstream.
pub struct Stream {
    pub provenance: Provenance,
    source: Source,
    usage: Usage,
    cost: Option<i64>,
    /// Set if the answer must match a schema.
    checked: Option<Checked>,
    /// Why the answering attempt was made; set when it has ended.
    why: Option<&'static str>,
    failures: Vec<AttemptFailure>,
    /// Time spent waiting for the network and the vendors up to the commit point.
    pub waited: Duration,
}

/// Checks a streamed answer against its schema at the end.
struct Checked {
    validators: Arc<Validators>,
    validator: Validator,
    /// The text so far.
    text: String,
    /// Set if the answer is of another form: a refusal, a tool call, or withheld by the vendor.
    other: bool,
}

impl Checked {
    fn piece(&mut self, piece: &Piece) {
        match piece {
            Piece::Text { choice: 0, text } => self.text.push_str(text),
            Piece::Refusal { choice: 0, .. }
            | Piece::ToolCall { choice: 0, .. }
            | Piece::Finish { choice: 0, reason: Finish::ContentFilter } => self.other = true,
            _ => {}
        }
    }

    /// Returns true if the text is valid as it stands (a stream cannot be repaired), or if there is no text.
    async fn holds(&self) -> Result<bool, GatewayError> {
        if self.other || self.text.is_empty() {
            return Ok(true);
        }
        let (said, verdict) = self.validators.check(&self.validator, self.text.clone()).await?;
        Ok(matches!(verdict, Verdict::Valid(text, _) if text == said.trim()))
    }
}

enum Source {
    Live(Box<Live>),
    Whole(VecDeque<Frame>, Option<Box<Row>>),
    Ended,
}

/// Opens a stream. `answering` is set once a vendor has begun to answer.
pub(super) async fn open(
    inner: &Inner,
    mut question: Question,
    answering: &AtomicBool,
) -> Result<Stream, GatewayError> {
    let validator = question.prepare(inner).await?;
    let arm = Arc::clone(&question.arm);
    if validator.is_some() && arm.keeps_schemas_by_words() {
        return Ok(at_once(&arm, &infer::whole(inner, question, Some(answering)).await?));
    }
    let mut run =
        Run::new(inner, &arm, question.asker.clone(), question.until(), &question.request, true, Some(answering));
    let mut provenance = Provenance {
        route: Arc::clone(&arm.route),
        variant: Arc::clone(&arm.variant),
        model: Arc::clone(&arm.model),
        endpoint: Arc::from("local"),
        vendor_model: Arc::from("local"),
        attempts: 0,
    };
    let (source, usage) = match run.next(&question.request).await? {
        Reached::Local => {
            let response = ask_embedded(&question.request, &question.asker, question.transcript.take()).await?;
            (Source::Whole(frames(&response), None), response.usage)
        }
        Reached::Opened(Opened::Whole(response, row)) => (Source::Whole(frames(&response), Some(row)), response.usage),
        Reached::Opened(Opened::Stream(live)) => (Source::Live(live), Usage::default()),
    };
    if let Some((endpoint, vendor_model)) = run.current() {
        provenance.endpoint = endpoint;
        provenance.vendor_model = vendor_model;
    }
    provenance.attempts = run.attempts;
    let waited = run.waited;
    Ok(Stream {
        cost: (provenance.attempts == 0).then_some(0),
        provenance,
        source,
        usage,
        checked: validator.map(|validator| {
            let validators = Arc::clone(&inner.validators);
            Checked { validators, validator, text: String::new(), other: false }
        }),
        why: None,
        failures: run.take_failures(),
        waited,
    })
}

/// A stream over an answer that was received, checked and repaired as a whole.
fn at_once(arm: &Arm, answer: &Answer) -> Stream {
    Stream {
        provenance: Provenance {
            route: Arc::clone(&arm.route),
            variant: Arc::clone(&arm.variant),
            model: Arc::clone(&answer.model),
            endpoint: Arc::clone(&answer.endpoint),
            vendor_model: Arc::clone(&answer.vendor_model),
            attempts: answer.attempts,
        },
        source: Source::Whole(frames(&answer.response), None),
        usage: answer.response.usage,
        cost: answer.cost_usd.map(price::pico),
        checked: None,
        why: None,
        failures: Vec::new(),
        waited: answer.waited,
    }
}

/// Splits a whole answer into the frames of a stream.
fn frames(response: &ChatResponse) -> VecDeque<Frame> {
    let start = Piece::Start { id: response.id.clone(), model: response.model.clone(), created: response.created };
    let mut frames = VecDeque::new();
    let mut push = |pieces: Vec<Piece>| frames.push_back(Frame { pieces, raw: None });
    push(vec![start]);
    for answer in &response.choices {
        let choice = answer.index;
        let mut pieces = Vec::new();
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        pieces.extend(text(&answer.reasoning).map(|text| Piece::Reasoning { choice, text }));
        let thinking = answer.rest.get(THINKING_BLOCKS).and_then(Value::as_array).into_iter().flatten();
        pieces.extend(thinking.map(|block| Piece::Thinking { choice, block: block.clone() }));
        pieces.extend(text(&answer.text).map(|text| Piece::Text { choice, text }));
        pieces.extend(text(&answer.refusal).map(|text| Piece::Refusal { choice, text }));
        for (index, call) in (0..).zip(&answer.tool_calls) {
            pieces.push(Piece::ToolCall {
                choice,
                index,
                id: Some(call.id.clone()),
                name: Some(call.name.clone()),
                arguments: call.arguments.clone(),
            });
        }
        pieces.extend(answer.logprobs.clone().map(|value| Piece::Logprobs { choice, value }));
        pieces.extend(answer.finish.map(|reason| Piece::Finish { choice, reason }));
        push(pieces);
    }
    push(vec![Piece::Usage(response.usage), Piece::Done]);
    frames
}

impl Stream {
    /// Appends the next frames to `out`; `false` after the last. Everything that arrived at once comes at once.
    ///
    /// # Errors
    /// The stream was interrupted, stalled or malformed, or its answer does not match the schema: nothing follows the
    /// frames delivered before.
    ///
    /// # Cancel safety
    /// Safe: no frame is lost.
    pub async fn next(&mut self, out: &mut Vec<Frame>) -> Result<bool, GatewayError> {
        let from = out.len();
        let more = match &mut self.source {
            Source::Live(live) => match live.next(out).await {
                Ok(more) => more,
                Err(failure) => return Err(self.broke(&failure)),
            },
            Source::Whole(frames, _) => {
                out.extend(frames.drain(..));
                out.len() > from
            }
            Source::Ended => false,
        };
        if let Some(checked) = &mut self.checked {
            out[from..].iter().flat_map(|frame| &frame.pieces).for_each(|piece| checked.piece(piece));
        }
        if more {
            return Ok(true);
        }
        self.end().await?;
        Ok(false)
    }

    /// Tokens, as far as the vendor reported them.
    pub fn usage(&self) -> Usage {
        match &self.source {
            Source::Live(live) => live.usage(),
            _ => self.usage,
        }
    }

    /// Cost in US dollars, once the stream has ended; `None` where it is not known.
    pub fn cost_usd(&self) -> Option<f64> {
        self.cost.map(price::usd)
    }

    /// Ends the stream and checks the answer. Cancel safe: a second call resumes.
    async fn end(&mut self) -> Result<(), GatewayError> {
        self.usage = self.usage();
        match std::mem::replace(&mut self.source, Source::Ended) {
            Source::Live(mut live) => {
                self.why = live.why();
                self.cost = live.close(None);
            }
            Source::Whole(_, Some(row)) => {
                self.cost = row.cost();
                row.succeed();
            }
            Source::Whole(_, None) | Source::Ended => {}
        }
        let holds = match &self.checked {
            Some(checked) => checked.holds().await,
            None => Ok(true),
        };
        self.checked = None;
        let error = match holds {
            Ok(true) => return Ok(()),
            Ok(false) => {
                let message = "the answer is not valid under the schema; what has been streamed cannot be repaired";
                GatewayError::new("schema_mismatch", message).temporarily()
            }
            Err(error) => error,
        };
        let (endpoint, model) = (Arc::clone(&self.provenance.endpoint), Arc::clone(&self.provenance.vendor_model));
        let mut attempts = std::mem::take(&mut self.failures);
        let mismatch = AttemptFailure::mismatch(endpoint, model, self.why);
        attempts.push(AttemptFailure { code: error.code(), ..mismatch });
        Err(error.with_attempts(attempts))
    }

    fn broke(&mut self, failure: &Failure) -> GatewayError {
        self.usage = self.usage();
        let mut why = None;
        if let Source::Live(mut live) = std::mem::replace(&mut self.source, Source::Ended) {
            why = live.why();
            self.cost = live.close(Some(failure));
        }
        let mut attempts = std::mem::take(&mut self.failures);
        attempts.push(AttemptFailure {
            endpoint: Arc::clone(&self.provenance.endpoint),
            model: Arc::clone(&self.provenance.vendor_model),
            status: failure.status,
            code: failure.code,
            why,
            message: failure.message.clone(),
        });
        let what = match failure.code {
            "timeout" => "the answer stalled, or took too long",
            "malformed" => "the stream made no sense",
            "interrupted" => "the stream was cut",
            _ => "the vendor broke the answer off",
        };
        let error = GatewayError::new(failure.code, format!("{what}; what came before is all there is"));
        let error = error.with_attempts(attempts).with_retry_after(failure.retry_after);
        if failure.temporary { error.temporarily() } else { error }
    }
}
