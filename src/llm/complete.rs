//! When an answer is complete: one rule for all vendors, for streams and whole bodies alike.
//!
//! A vendor marks an answer as complete by a known finish reason, or by an end mark (`[DONE]`, `message_stop`,
//! `message-end`) after some content. A closed connection is no such mark.
//!
//! Does not know how a vendor spells its events, nor what follows a failure. The arguments of a tool call are the
//! model's own text and not checked: a client that repairs JSON may use them.

use super::{ChatResponse, Finish, Piece, StreamError, VendorError};

/// Longest part of a vendor's finish reason that is kept, in bytes.
const MAX_WORD_BYTES: usize = 40;
/// Longest part of a finish reason that is read, in bytes. A vendor may put a text of any length there.
const MAX_READ_BYTES: usize = 1024;

/// Why an answer ended, according to its vendor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A known reason.
    Known(Finish),
    /// An unknown reason, in the vendor's spelling.
    Unknown(String),
    /// The vendor does not say: the field is missing, null or empty.
    Absent,
}

/// Why an answer is not complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Incomplete {
    /// The answer has no content, and no finish reason explains that.
    #[error("the answer is empty, and the vendor does not say why")]
    Empty,
    /// The answer's end is missing.
    #[error("the answer ends without a finish reason and without an end mark")]
    Cut,
    /// The answer ends with an unknown finish reason, and nothing else shows that it is complete.
    #[error("the answer ends with the unknown finish reason {0:?}")]
    Unknown(String),
    /// Parts of the stream were unreadable, and the rest is not an answer with content and a known finish reason. The
    /// number of unreadable events.
    #[error("the stream ended without an answer; {0} events were unreadable")]
    Unread(u32),
}

/// Decides if one answer is complete, and with which finish reason.
///
/// `said`: its content is text, a refusal or a tool call (thinking alone does not count). `marked`: the end mark came.
/// `closed`: the body ended by its own framing; otherwise it was cut or stalled.
///
/// | said | reason | marked | closed | complete |
/// |---|---|---|---|---|
/// | yes | known | any | any | yes, for that reason |
/// | yes | unknown | yes | any | yes, as `stop` or `tool_calls` |
/// | yes | unknown | no | any | no |
/// | yes | absent | yes | any | yes, as `stop` or `tool_calls` |
/// | yes | absent | no | any | no |
/// | no | known | yes | any | yes: there was nothing to say |
/// | no | known | no | yes | yes: there was nothing to say |
/// | no | known | no | no | no: content may be missing |
/// | no | `tool_calls` | any | any | no: the calls are missing |
/// | no | unknown, absent | any | any | no |
///
/// A whole body is closed and has no end mark, so its finish reason must be known.
///
/// # Errors
/// The reason why the answer is not complete.
pub fn complete(said: Said, reason: &Reason, marked: bool, closed: bool) -> Result<Finish, Incomplete> {
    match (said, reason) {
        (Said::Nothing, Reason::Known(Finish::ToolCalls)) => Err(Incomplete::Empty),
        (Said::Nothing, Reason::Known(finish)) if marked || closed => Ok(*finish),
        (Said::Nothing, Reason::Known(_)) => Err(Incomplete::Cut),
        (Said::Nothing, Reason::Unknown(word)) => Err(Incomplete::Unknown(word.clone())),
        (Said::Nothing, Reason::Absent) => Err(Incomplete::Empty),
        (_, Reason::Known(finish)) => Ok(*finish),
        (Said::Words, _) if marked => Ok(Finish::Stop),
        (Said::Calls, _) if marked => Ok(Finish::ToolCalls),
        (_, Reason::Unknown(word)) => Err(Incomplete::Unknown(word.clone())),
        (_, Reason::Absent) => Err(Incomplete::Cut),
    }
}

/// Content of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// None, or only thinking.
    Nothing,
    /// Text or a refusal.
    Words,
    /// Tool calls, with or without text.
    Calls,
}

/// What was received so far of all answers to one request.
#[derive(Debug, Default)]
pub struct Progress {
    answers: Vec<Answer>,
    marked: bool,
    unread: u32,
}

#[derive(Debug)]
struct Answer {
    choice: u32,
    said: Said,
    reason: Reason,
}

impl Progress {
    /// Takes the next piece into account.
    pub fn piece(&mut self, piece: &Piece) {
        match piece {
            Piece::Text { choice, text } | Piece::Refusal { choice, text } if !text.is_empty() => {
                self.says(*choice, Said::Words);
            }
            Piece::ToolCall { choice, .. } => self.says(*choice, Said::Calls),
            Piece::Reasoning { choice, .. } | Piece::Thinking { choice, .. } => {
                self.answer(*choice);
            }
            Piece::Finish { choice, reason } => self.answer(*choice).reason = Reason::Known(*reason),
            Piece::UnknownFinish { choice, word } => {
                let answer = self.answer(*choice);
                if answer.reason == Reason::Absent {
                    answer.reason = Reason::Unknown(word.clone());
                }
            }
            Piece::Done => self.marked = true,
            Piece::Start { .. }
            | Piece::Text { .. }
            | Piece::Refusal { .. }
            | Piece::Logprobs { .. }
            | Piece::Usage(_) => {}
        }
    }

    /// Records that an event could not be read which may have been part of an answer.
    pub fn unread(&mut self) {
        self.unread = self.unread.saturating_add(1);
    }

    /// The finish reason of each answer, if [`complete`] accepts all answers that began. Fewer than the `asked` answers
    /// are accepted only if the end mark came.
    ///
    /// The end mark replaces missing finish reasons only if the vendor gave none at all: if another answer has one, an
    /// answer without was cut.
    ///
    /// # Errors
    /// The reason why an answer is not complete.
    pub fn end(&self, asked: u32, closed: bool) -> Result<Vec<(u32, Finish)>, Incomplete> {
        let reasons = self.answers.iter().any(|answer| answer.reason != Reason::Absent);
        let known = |answer: &Answer| matches!(answer.reason, Reason::Known(_));
        let unread = || if self.unread > 0 { Err(Incomplete::Unread(self.unread)) } else { Ok(()) };
        if self.answers.is_empty() {
            unread()?;
            return Err(Incomplete::Empty);
        }
        let mut finishes = Vec::with_capacity(self.answers.len());
        for answer in &self.answers {
            if answer.said == Said::Nothing || !known(answer) {
                unread()?;
            }
            let marked = self.marked && !(reasons && answer.reason == Reason::Absent);
            finishes.push((answer.choice, complete(answer.said, &answer.reason, marked, closed)?));
        }
        let missing = (self.answers.len() as u64) < u64::from(asked);
        if missing && !self.marked { Err(Incomplete::Cut) } else { Ok(finishes) }
    }

    fn says(&mut self, choice: u32, said: Said) {
        let answer = self.answer(choice);
        // Further content shows that an earlier finish reason was not the end.
        answer.reason = Reason::Absent;
        if answer.said != Said::Calls {
            answer.said = said;
        }
    }

    fn answer(&mut self, choice: u32) -> &mut Answer {
        let position = self.answers.iter().position(|answer| answer.choice == choice).unwrap_or_else(|| {
            self.answers.push(Answer { choice, said: Said::Nothing, reason: Reason::Absent });
            self.answers.len() - 1
        });
        &mut self.answers[position]
    }
}

/// Checks a whole body. `unknown`: the finish reasons that are not known, by choice.
///
/// # Errors
/// An answer in it is not complete.
pub(super) fn whole(response: ChatResponse, unknown: Vec<(u32, String)>) -> Result<ChatResponse, StreamError> {
    let mut progress = Progress::default();
    for choice in &response.choices {
        let index = choice.index;
        progress.answer(index);
        let text = [&choice.text, &choice.refusal].into_iter().flatten().any(|text| !text.is_empty());
        // Audio is content too.
        if text || choice.rest.contains_key("audio") {
            progress.says(index, Said::Words);
        }
        if !choice.tool_calls.is_empty() {
            progress.says(index, Said::Calls);
        }
        if let Some(reason) = choice.finish {
            progress.piece(&Piece::Finish { choice: index, reason });
        }
    }
    for (choice, word) in unknown {
        progress.piece(&Piece::UnknownFinish { choice, word });
    }
    match progress.end(0, true) {
        Ok(_) => Ok(response),
        Err(why) => Err(StreamError::Incomplete { why, usage: response.usage }),
    }
}

/// Reads a vendor's finish reason.
///
/// # Errors
/// The reason says that the answer failed. `why` is the vendor's message about that, if there is one.
pub(super) fn reason(word: Option<&str>, why: Option<&str>) -> Result<Reason, StreamError> {
    let Some(word) = word.map(str::trim) else { return Ok(Reason::Absent) };
    let word = &word[..word.floor_char_boundary(MAX_READ_BYTES)];
    let plain = word.to_ascii_lowercase().replace(['-', ' '], "_");
    let plain = plain.strip_prefix("finish_reason_").unwrap_or(&plain);
    if matches!(plain, "" | "null" | "none" | "unspecified") {
        return Ok(Reason::Absent);
    }
    if let Some(finish) = Finish::parse(plain) {
        return Ok(Reason::Known(finish));
    }
    let mut word = word.to_owned();
    super::cut(&mut word, MAX_WORD_BYTES);
    let failed = FAILURES.contains(&plain) || FAILING.iter().any(|part| plain.contains(part));
    if !failed {
        return Ok(Reason::Unknown(word));
    }
    let status = match plain {
        _ if plain.contains("timeout") || plain.contains("timed_out") => 504,
        "missing_thought_signature" => 400,
        _ if plain.contains("overload") || plain.contains("insufficient") => 503,
        _ => 500,
    };
    let message = match why {
        Some(why) => why.to_owned(),
        None if plain == "missing_thought_signature" => {
            "a tool call came back without the signature that was in its id".to_owned()
        }
        None => format!("the answer ended with {word}"),
    };
    Err(StreamError::Vendor(VendorError::new(status, Some(word), message)))
}

/// Finish reasons that mean that the answer failed: Gemini's and similar ones.
const FAILURES: &[&str] =
    &["image_other", "missing_thought_signature", "no_image", "other", "too_many_tool_calls", "unexpected_tool_call"];
/// Parts of words that mean a failure at any vendor: `ERROR_LIMIT`, `abort`, `insufficient_system_resource`,
/// `network_error`.
const FAILING: &[&str] =
    &["abort", "cancel", "error", "fail", "insufficient", "interrupt", "malformed", "overload", "timed_out", "timeout"];

/// Appends the end of an answer, if the vendor's finish reason says that it ended. `called`: the answer has tool calls,
/// so `stop` becomes `tool_calls`.
///
/// # Errors
/// As [`reason`].
pub(super) fn finish(choice: u32, word: Option<&str>, called: bool, out: &mut Vec<Piece>) -> Result<(), StreamError> {
    match reason(word, None)? {
        Reason::Known(Finish::Stop) if called => out.push(Piece::Finish { choice, reason: Finish::ToolCalls }),
        Reason::Known(reason) => out.push(Piece::Finish { choice, reason }),
        Reason::Unknown(word) => out.push(Piece::UnknownFinish { choice, word }),
        Reason::Absent => {}
    }
    Ok(())
}

/// Returns true if an event is the end mark of OpenAI's streams. Intermediate servers send it after other vendors'
/// streams too.
pub(super) fn is_mark(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}

#[cfg(test)]
mod tests;
