//! Streams of one model for clients: frames as they arrive, after the commit point.
//!
//! Knows no fallback: after the commit point no other model can take over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::Value;

use super::next::Reached;
use super::prepare::{deadline, prepare};
use super::run::Run;
use super::shared::Shared;
use super::validators::Validators;
use super::{complete, embedded};
use crate::gateway::answer::{Answer, Provenance};
use crate::gateway::attempt::decoding::Frame;
use crate::gateway::attempt::opened::Opened;
use crate::gateway::attempt::record::AttemptRecord;
use crate::gateway::attempt::stream::AttemptStream;
use crate::gateway::code::Code;
use crate::gateway::error::{AttemptFailure, Failure, GatewayError};
use crate::gateway::price;
use crate::gateway::request::Request;
use crate::llm::schema::{Validator, Verdict};
use crate::llm::{ChatResponse, Finish, Piece, THINKING_BLOCKS, Usage};
use crate::types::Why;

/// A stream past its commit point. Dropping it in the middle aborts the request upstream.
pub struct Stream {
    pub provenance: Provenance,
    source: Source,
    usage: Usage,
    cost: Option<i64>,
    /// Set if the answer must match a schema.
    checked: Option<Checked>,
    /// Why the answering attempt was made; set when it has ended.
    why: Option<Why>,
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
    Live(Box<AttemptStream>),
    Whole(VecDeque<Frame>, Option<Box<AttemptRecord>>),
    Ended,
}

/// Opens a stream of the request's model. `answering` is set once a vendor has sent a successful response header.
pub(super) async fn open(
    shared: &Shared,
    request: &mut Request,
    answering: &AtomicBool,
) -> Result<Stream, GatewayError> {
    let resolved = Arc::clone(&request.resolved);
    let validator = prepare(&shared.validators, &resolved, &mut request.chat).await?;
    if validator.is_some() && resolved.asks_for_schemas_in_prompts() {
        return Ok(at_once(complete::whole(shared, request, Some(answering)).await?));
    }
    let mut run = Run::new(shared, &resolved, request, deadline(request), true, Some(answering));
    let (source, usage) = match run.next(&request.chat).await? {
        Reached::Local => {
            let response = embedded::ask(request).await?;
            (Source::Whole(frames(&response), None), response.usage)
        }
        Reached::Opened(Opened::Whole(response, record)) => {
            (Source::Whole(frames(&response), Some(record)), response.usage)
        }
        Reached::Opened(Opened::Stream(stream)) => (Source::Live(stream), Usage::default()),
    };
    let (endpoint, vendor_model) = run.current().unwrap_or_else(|| (embedded::name(), embedded::name()));
    let provenance = Provenance {
        name: Arc::clone(&request.name),
        route: Arc::clone(&resolved.route),
        variant: Arc::clone(&resolved.variant),
        model: Arc::clone(&resolved.model),
        endpoint,
        vendor_model,
        attempts: run.attempts,
    };
    let waited = run.waited;
    Ok(Stream {
        cost: (provenance.attempts == 0).then_some(0),
        provenance,
        source,
        usage,
        checked: validator.map(|validator| {
            let validators = Arc::clone(&shared.validators);
            Checked { validators, validator, text: String::new(), other: false }
        }),
        why: None,
        failures: run.take_failures(),
        waited,
    })
}

/// A stream over an answer that was received, checked and repaired as a whole.
fn at_once(answer: Answer) -> Stream {
    Stream {
        source: Source::Whole(frames(&answer.response), None),
        provenance: answer.provenance,
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
    /// Appends the next frames to `out`; returns false after the last. Everything that arrived at once is returned at
    /// once.
    ///
    /// # Errors
    /// The stream was interrupted, stalled or malformed, or its answer does not match the schema: no frame follows
    /// those already returned.
    ///
    /// # Cancel safety
    /// Safe: no frame is lost.
    pub async fn next(&mut self, out: &mut Vec<Frame>) -> Result<bool, GatewayError> {
        let from = out.len();
        let more = match &mut self.source {
            Source::Live(stream) => match stream.next(out).await {
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
            Source::Live(stream) => stream.usage(),
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
            Source::Live(mut stream) => {
                self.why = stream.why();
                self.cost = stream.close(None);
            }
            Source::Whole(_, Some(record)) => {
                self.cost = record.cost();
                record.succeed();
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
                let message = "the answer is not valid under the schema, and a streamed answer cannot be repaired";
                GatewayError::new(Code::SchemaMismatch, message).temporarily()
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
        if let Source::Live(mut stream) = std::mem::replace(&mut self.source, Source::Ended) {
            why = stream.why();
            self.cost = stream.close(Some(failure));
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
            Code::Timeout => "the answer stalled, or took too long",
            Code::Malformed => "the stream was malformed",
            Code::Interrupted => "the stream was cut",
            _ => "the vendor ended the answer early",
        };
        let error = GatewayError::new(failure.code, format!("{what}; the answer ends here"));
        let error = error.with_attempts(attempts).with_retry_after(failure.retry_after);
        if failure.temporary { error.temporarily() } else { error }
    }
}
