//! The embedded provider: computes answers from the structured transcript, without any model.
//!
//! Knows no prompt, no analysis and no I/O. Its methods are simple: sentiment by lexicon, rules and a small linear model,
//! summaries by extraction, action items and questions by patterns of English sentences. The same transcript always gives
//! the same answer. It refuses what it cannot do. An analysis names its [`Method`] in its folder.

mod acts;
mod clean;
mod done;
mod due;
mod extract;
mod fits;
mod form;
mod lexicon;
mod ngrams;
mod outcome;
mod parts;
mod sentiment;
mod service;
mod topics;
pub(crate) mod words;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{ChatRequest, ChatResponse, Finish, Piece, ResponseFormat, Usage};
use crate::base::text;
use crate::types::provider::LOCAL;
use crate::types::{Transcript, Turn};

use extract::HEADLINE_WORDS;
pub use extract::{Extract, Passage, extract};
pub use fits::fits;
pub use parts::answer_parts;
pub use sentiment::{Mood, mood};

/// Longest quote, in words.
const QUOTE_WORDS: usize = 24;
/// Maximum number of quotes of a summary.
const SUMMARY_QUOTES: usize = 5;
/// Maximum number of quotes of a sentiment.
const SENTIMENT_QUOTES: usize = 4;
/// Minimum number of turns for a trend.
const TREND_TURNS: usize = 6;
/// Minimum difference of mean scores that counts as a trend.
const TREND_STEP: f64 = 0.12;

/// Without a model, no tokens are read or written. The counts are zero and not unknown, because some clients require
/// numbers.
const USAGE: Usage =
    Usage { input: Some(0), cached: Some(0), cache_write: Some(0), output: Some(0), reasoning: Some(0) };

/// A way to compute an answer from a transcript; each has its own form of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A summary by extraction: `{headline, points: [{id, text, speaker}], outcome, evidence: [{turn, quote}]}`; the outcome
    /// is null.
    Extract,
    /// The sentiment of the conversation: `{overall: {label, score}, speakers: [{speaker, label, score}], trend,
    /// evidence: [{turn, quote}]}`.
    Sentiment,
    /// The sentiment of the newest turn: `{label, score}`.
    Mood,
    /// Promises and requests by pattern: `{items: [{id, text, owner, due, state, evidence: {turn, quote}}]}`.
    Actions,
    /// Questions by pattern: `{questions: [{id, text, asked_by, state, answer, evidence: {turn, quote}}]}`.
    Questions,
}

impl Method {
    /// All methods, by the name in `local = "…"`.
    pub const ALL: [(&'static str, Self); 5] = [
        ("extract", Self::Extract),
        ("sentiment", Self::Sentiment),
        ("mood", Self::Mood),
        ("actions", Self::Actions),
        ("questions", Self::Questions),
    ];

    /// The method with that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
    }
}

/// Why the embedded provider gives no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocalError {
    /// The provider cannot do this.
    #[error("the embedded provider does not support {0}; configure an endpoint")]
    Unsupported(String),
    /// There is no transcript with text.
    #[error("the embedded provider answers from the transcript in a request, and this request has none")]
    NoTranscript,
}

/// Answers from the transcript: with a `method`, by that method, as JSON; without one, with a plain summary.
///
/// # Errors
/// The request asks for something else than a plain summary, or there is no transcript with text.
pub fn answer(
    method: Option<Method>,
    request: &ChatRequest,
    transcript: Option<&Transcript>,
) -> Result<ChatResponse, LocalError> {
    if method.is_none() && (!request.tools.is_empty() || request.response_format.is_some()) {
        return Err(LocalError::Unsupported("tools or answers in a caller's format".to_owned()));
    }
    let (turns, newest) = spoken(transcript)?;
    Ok(response(match method {
        Some(method) => form::fitted(value(method, &turns, newest), schema_of(request)).to_string(),
        None => plain(&turns),
    }))
}

/// The turns of a transcript, and the newest of them.
fn spoken(transcript: Option<&Transcript>) -> Result<(Vec<&Turn>, &Turn), LocalError> {
    let turns: Vec<&Turn> =
        transcript.map(|transcript| transcript.turns.iter().map(AsRef::as_ref).collect()).unwrap_or_default();
    match turns.last().copied() {
        Some(newest) => Ok((turns, newest)),
        None => Err(LocalError::NoTranscript),
    }
}

/// The schema that an answer is asked to have.
fn schema_of(request: &ChatRequest) -> Option<&Value> {
    match &request.response_format {
        Some(ResponseFormat::JsonSchema { schema, .. }) => Some(schema),
        _ => None,
    }
}

/// An answer with this text.
fn response(text: String) -> ChatResponse {
    let mut response = ChatResponse { model: LOCAL.to_owned(), usage: USAGE, ..ChatResponse::default() };
    response.absorb(&Piece::Text { choice: 0, text });
    response.absorb(&Piece::Finish { choice: 0, reason: Finish::Stop });
    response
}

/// Computes the value of a method.
fn value(method: Method, turns: &[&Turn], newest: &Turn) -> Value {
    match method {
        Method::Extract => summary(turns),
        Method::Sentiment => sentiment(turns),
        Method::Mood => {
            let mood = moods(turns).pop().unwrap_or_else(|| mood(&newest.text));
            json!({ "label": mood.label(), "score": rounded(mood.score) })
        }
        Method::Actions => {
            let items = acts::actions(turns).into_iter().map(|action| {
                let evidence = json!({ "turn": action.turn, "quote": quote(&action.verbatim) });
                let state = if action.done { "done" } else { "open" };
                json!({ "id": "", "text": action.text, "owner": action.owner, "due": action.due, "state": state, "evidence": evidence })
            });
            json!({ "items": items.collect::<Vec<_>>() })
        }
        Method::Questions => {
            let questions = acts::questions(turns).into_iter().map(|asked| {
                let evidence = json!({ "turn": asked.turn, "quote": quote(&asked.verbatim) });
                let state = if asked.answer.is_some() { "answered" } else { "open" };
                json!({ "id": "", "text": asked.text, "asked_by": asked.by, "state": state, "answer": asked.answer, "evidence": evidence })
            });
            json!({ "questions": questions.collect::<Vec<_>>() })
        }
    }
}

fn summary(turns: &[&Turn]) -> Value {
    let Extract { headline, points: passages } = extract(turns);
    let points: Vec<Value> =
        passages.iter().map(|passage| json!({ "id": "", "text": passage.text, "speaker": passage.speaker })).collect();
    let mut quoted: Vec<&Passage> = passages.iter().collect();
    quoted.sort_by(|one, other| other.score.total_cmp(&one.score));
    quoted.truncate(SUMMARY_QUOTES - 1);
    quoted.extend(&headline);
    quoted.sort_by_key(|passage| passage.turn);
    let evidence: Vec<Value> =
        quoted.iter().map(|passage| json!({ "turn": passage.turn, "quote": quote(&passage.verbatim) })).collect();
    let headline = headline.map(|passage| shortened(&passage.text, HEADLINE_WORDS)).unwrap_or_default();
    json!({ "headline": headline, "points": points, "outcome": null, "evidence": evidence })
}

/// A summary as text: the speakers and their most important sentences, one per line, in reading order.
fn plain(turns: &[&Turn]) -> String {
    let Extract { headline, mut points } = extract(turns);
    points.extend(headline);
    // The sort is stable: within one turn, the headline comes last.
    points.sort_by_key(|passage| passage.turn);
    let lines = points.into_iter().map(|passage| match passage.speaker {
        Some(speaker) => format!("{speaker}: {}", passage.text),
        None => passage.text,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The mood of each turn. The politeness and sympathy of a speaker who serves customers do not count.
fn moods(turns: &[&Turn]) -> Vec<Mood> {
    let servers = service::servers(turns);
    let serves = |turn: &Turn| turn.speaker.as_deref().is_some_and(|speaker| servers.contains(&speaker));
    turns
        .iter()
        .map(|turn| if serves(turn) { sentiment::mood_of_server(&turn.text) } else { mood(&turn.text) })
        .collect()
}

fn sentiment(turns: &[&Turn]) -> Value {
    let moods = moods(turns);
    let mut by_speaker: BTreeMap<&str, Vec<&Mood>> = BTreeMap::new();
    for (turn, mood) in turns.iter().zip(&moods) {
        if let Some(speaker) = turn.speaker.as_deref().filter(|speaker| !speaker.is_empty()) {
            by_speaker.entry(speaker).or_default().push(mood);
        }
    }
    let judged = |moods: &mut dyn Iterator<Item = &Mood>| {
        let score = sentiment::together(moods);
        (sentiment::label_of_many(score), rounded(score))
    };
    let (label, score) = judged(&mut moods.iter());
    let speakers: Vec<Value> = by_speaker
        .into_iter()
        .map(|(speaker, moods)| {
            let (label, score) = judged(&mut moods.into_iter());
            json!({ "speaker": speaker, "label": label, "score": score })
        })
        .collect();
    let mut telling: Vec<(&Turn, &Mood)> =
        turns.iter().copied().zip(&moods).filter(|(_, mood)| mood.label() != "neutral").collect();
    telling.sort_by(|one, other| other.1.score.abs().total_cmp(&one.1.score.abs()));
    telling.truncate(SENTIMENT_QUOTES);
    telling.sort_by_key(|(turn, _)| turn.turn);
    let evidence: Vec<Value> =
        telling.iter().map(|(turn, _)| json!({ "turn": turn.turn, "quote": quote(&turn.text) })).collect();
    json!({
        "overall": { "label": label, "score": score },
        "speakers": speakers,
        "trend": trend(&moods),
        "evidence": evidence,
    })
}

/// Compares the last third of the turns with those before it.
fn trend(moods: &[Mood]) -> &'static str {
    if moods.len() < TREND_TURNS {
        return "stable";
    }
    let (before, latest) = moods.split_at(moods.len() - moods.len() / 3);
    let step = sentiment::together(&mut latest.iter()) - sentiment::together(&mut before.iter());
    if step >= TREND_STEP {
        "improving"
    } else if step <= -TREND_STEP {
        "worsening"
    } else {
        "stable"
    }
}

/// The first words of a text, unchanged.
fn quote(text: &str) -> String {
    let text = text.trim();
    text[..cut(text, QUOTE_WORDS)].to_owned()
}

/// The first words of a text, with an ellipsis if it is cut.
fn shortened(text: &str, words: usize) -> String {
    let text = text.trim();
    let end = cut(text, words);
    if end == text.len() {
        return text.to_owned();
    }
    format!("{}…", text[..end].trim_end_matches([',', ';', ':', '.', ' ']))
}

/// Offset of the end of the first `words` written words (in scripts without spaces, of twice as many characters), never
/// within a number of several words.
fn cut(text: &str, words: usize) -> usize {
    let place = |slice: &str| slice.as_ptr().addr() - text.as_ptr().addr();
    // Each word takes two units of room, so that a character of a script without spaces, which takes one, counts half.
    let (mut room, mut end, mut last) = (2 * words, 0, String::new());
    for word in text::written(text) {
        let took = if word.chars().any(text::is_unspaced) { 1 } else { 2 };
        let bare = words::bare(word);
        if room < took {
            // Moves back to before a number that would be cut in two.
            let breaks = words::is_number(&last) && words::is_number(&bare);
            return if breaks { before_number(&text[..end]) } else { end };
        }
        room -= took;
        end = place(word) + word.len();
        last = bare;
    }
    text.len()
}

/// Offset of the numbers at the end of the text; the whole length if the text consists of numbers only.
fn before_number(text: &str) -> usize {
    let mut kept = text;
    while let Some(word) = text::written(kept).last().filter(|word| words::is_number(&words::bare(word))) {
        kept = kept[..kept.len() - word.len()].trim_end();
    }
    if kept.is_empty() { text.len() } else { kept.len() }
}

/// Rounds to two decimals.
fn rounded(score: f64) -> f64 {
    (score * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests;
