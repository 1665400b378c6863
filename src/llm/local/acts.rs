//! Finds promises, requests and questions by patterns of English sentences.
//!
//! Knows no subject and no calendar. Filler sounds are removed from sentences; numbers, dates and names stay as they
//! were said. In other languages it finds hardly anything but questions that end with a question mark.

use std::collections::BTreeSet;

use super::due::due;
use super::{clean, done, service, words};
use crate::types::{Turn, TurnNo};

/// Maximum number of items in one list; of more, the newest are kept.
const MOST: usize = 50;
/// Minimum number of content words in a sentence that names something to be done.
const LEAST_CONTENT: usize = 2;
/// Minimum number of words in a question that is listed.
const LEAST_QUESTION_WORDS: usize = 3;
/// Number of turns after a question that are searched for its answer.
const ANSWER_TURNS: usize = 3;
/// Share of an item's content words that a sentence must contain to mark the item as done, and share from which two
/// items count as the same.
const DONE_PART: f64 = 0.5;
const SAME_PART: f64 = 0.7;

/// Phrases with which a speaker promises something.
static PROMISES: &[&str] = &[
    "i'll",
    "i will",
    "we'll",
    "we will",
    "i'm going to",
    "we're going to",
    "i am going to",
    "we are going to",
    "i promise",
    "i shall",
    "i can send",
    "i can call",
    "i can email",
];
/// Phrases after which a promise does not count: the thing is done at once, or is no action.
static NO_PROMISES: &[&str] = &[
    "be happy",
    "be glad",
    "be right",
    "be honest",
    "be back",
    "be able",
    "be here",
    "be there",
    "have to think",
    "think",
    "see you",
    "see what",
    "talk to you",
    "speak to you",
    "let you go",
    "say",
    "tell you what",
    "need your",
    "need you",
    "need to know",
    "wait",
    "hold",
    "not",
    "never",
    "do that",
    "do it now",
    "just check",
    "check that for you",
    "take a look",
    "have a look",
    "pull up",
    "look that up",
    "bet",
    "miss",
    "try to remember",
    "go ahead",
    "ask you",
    "stay on",
    "put you on",
];
/// Phrases with which a speaker requests something from the other.
static REQUESTS: &[&str] = &[
    "could you",
    "can you",
    "would you",
    "will you please",
    "please",
    "make sure",
    "don't forget",
    "do not forget",
    "remember to",
    "i need you to",
    "i'd like you to",
    "i want you to",
    "you need to",
    "you have to",
    "you'll need to",
    "you'll have to",
];
/// Phrases that show that a request concerns only this conversation.
static NO_REQUESTS: &[&str] = &[
    "tell me",
    "give me your",
    "have your",
    "your name",
    "repeat",
    "hold",
    "wait",
    "hear me",
    "see that",
    "confirm your",
    "spell",
    "say that again",
    "bear with",
    "help me",
    "help you",
    "explain",
    "verify",
    "speak up",
    "read me",
    "imagine",
    "believe",
    "moment",
    "second",
    "minute",
    "stay on",
    "be more",
    "calm",
    "come again",
    "look at",
    "let me",
    "describe",
    "walk me",
    "pull up",
    "mind",
    "excuse",
    "say",
];
/// Words that say nothing about what is to be done.
static IDLE: &str = "will please shall promise today tomorrow tonight";
/// Polite questions, and questions that expect no answer.
static NO_QUESTIONS: &[&str] = &[
    "how are you",
    "how can i",
    "how may i",
    "what can i do",
    "anything else",
    "can i help",
    "may i help",
    "can you hear",
    "are you there",
    "how's it going",
    "how is it going",
    "is that right",
    "is that correct",
    "isn't it",
    "does that make sense",
    "what do you mean",
    "may i have your",
    "can i have your",
    "could i have your",
    "can i get your",
    "could you hold",
    "can you hold",
    "would you mind",
    "how do you do",
    "what was that",
    "sorry what",
];
/// Answers that postpone the real answer.
static PUT_OFF: &[&str] = &[
    "i don't know",
    "i do not know",
    "not sure",
    "let me",
    "i'll find out",
    "i'll check",
    "i will check",
    "i'd have to",
    "no idea",
    "good question",
    "one moment",
    "just a moment",
    "i'll ask",
    "i will ask",
    "hold on",
    "hang on",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Action {
    pub(super) turn: TurnNo,
    pub(super) text: String,
    /// The item's words as they are in the turn.
    pub(super) verbatim: String,
    pub(super) owner: Option<String>,
    pub(super) due: Option<String>,
    pub(super) done: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) turn: TurnNo,
    pub(super) text: String,
    /// The question's words as they are in the turn.
    pub(super) verbatim: String,
    pub(super) by: Option<String>,
    /// The answer, from a later turn.
    pub(super) answer: Option<String>,
}

/// The content words and the numbers of a sentence.
struct Subject {
    words: BTreeSet<String>,
    numbers: BTreeSet<String>,
}

impl Subject {
    fn of(sentence: &str) -> Self {
        let is_idle = |word: &String| IDLE.split(' ').any(|idle| idle == word);
        let words = words::content(sentence).into_iter().filter(|word| !is_idle(word)).collect();
        Self { words, numbers: words::plain(sentence).filter(|word| words::is_number(word)).collect() }
    }

    /// Share of its words that `other` contains; 0 if both have numbers and these differ.
    #[expect(clippy::cast_precision_loss, reason = "a sentence has few words")]
    fn part_in(&self, other: &Self) -> f64 {
        let differ = !self.numbers.is_empty() && !other.numbers.is_empty() && self.numbers != other.numbers;
        if differ { 0.0 } else { self.words.intersection(&other.words).count() as f64 / self.words.len().max(1) as f64 }
    }
}

/// A promise, a request or a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Promise,
    Request,
}

/// Promises and requests, in the order of the conversation.
pub(super) fn actions(turns: &[&Turn]) -> Vec<Action> {
    let mut actions: Vec<(Action, Subject)> = Vec::new();
    for turn in turns {
        for sentence in words::sentences(&turn.text) {
            let (said, subject) = (service::spoken(sentence), Subject::of(sentence));
            if done::says_done(&said) {
                for (action, known) in &mut actions {
                    action.done |= action.turn < turn.turn && known.part_in(&subject) >= DONE_PART;
                }
            }
            let Some(act) = act(sentence, &said).filter(|_| subject.words.len() >= LEAST_CONTENT) else { continue };
            let text = clean::without_opening(&clean::cleaned(sentence));
            if text.is_empty() {
                continue;
            }
            let speaker = turn.speaker.clone().filter(|speaker| !speaker.is_empty());
            let owner = if act == Act::Promise { speaker } else { other(turns, speaker.as_deref()) };
            let due = due(sentence).map(str::to_owned);
            // If the same speaker repeats it, or another one agrees to a request, it is the same action.
            let is_same = |known: &Subject| known.part_in(&subject).max(subject.part_in(known)) >= SAME_PART;
            if let Some((known, _)) = actions.iter_mut().find(|(_, known)| is_same(known)) {
                known.due = known.due.take().or(due);
                if act == Act::Promise && owner.is_some() {
                    known.owner = owner;
                }
                continue;
            }
            let verbatim = sentence.to_owned();
            actions.push((Action { turn: turn.turn, text, verbatim, owner, due, done: false }, subject));
        }
    }
    let over = actions.len().saturating_sub(MOST);
    actions.into_iter().skip(over).map(|(action, _)| action).collect()
}

/// Questions, in the order of the conversation, with their answers.
pub(super) fn questions(turns: &[&Turn]) -> Vec<Asked> {
    let mut questions = Vec::new();
    for (index, turn) in turns.iter().enumerate() {
        let sentences: Vec<&str> = words::sentences(&turn.text).collect();
        for (number, sentence) in sentences.iter().enumerate() {
            let said = service::spoken(sentence);
            let is_tag = said.split_whitespace().count() < LEAST_QUESTION_WORDS;
            let asks = words::is_question(sentence) && !is_tag && !words::content(sentence).is_empty();
            if !asks || holds_any(&said, NO_QUESTIONS) || act(sentence, &said).is_some() {
                continue;
            }
            // If the same speaker continues after the question, the speaker may be answering it.
            let rhetorical = sentences.get(number + 1).is_some_and(|next| !words::is_question(next) && answers(next));
            if rhetorical && turns.get(index + 1).is_none_or(|next| next.speaker == turn.speaker) {
                continue;
            }
            questions.push(Asked {
                turn: turn.turn,
                text: clean::without_opening(&clean::cleaned(sentence)),
                verbatim: (*sentence).to_owned(),
                by: turn.speaker.clone().filter(|speaker| !speaker.is_empty()),
                answer: answer(turns, index),
            });
        }
    }
    questions.retain(|question| !question.text.is_empty());
    let over = questions.len().saturating_sub(MOST);
    questions.split_off(over)
}

/// The answer to a question in the turn at `index`: the next statement of another speaker.
fn answer(turns: &[&Turn], index: usize) -> Option<String> {
    let asker = &turns[index].speaker;
    let behind = turns[index + 1..].iter().take(ANSWER_TURNS).filter(|turn| turn.speaker != *asker);
    for turn in behind {
        let mut statements = words::sentences(&turn.text).filter(|sentence| !words::is_question(sentence));
        let Some(first) = statements.next() else { continue };
        if holds_any(&service::spoken(first), PUT_OFF) {
            return None;
        }
        // A bare "Yes." is an answer, and the sentence after it belongs to it.
        let whole = if words::content(first).is_empty() {
            statements.next().map_or(first, |next| joined(&turn.text, first, next))
        } else {
            first
        };
        let text = clean::cleaned(whole);
        if !text.is_empty() {
            return Some(text);
        }
    }
    None
}

/// The part of a text from the start of `first` to the end of `last`; both are slices of that text.
fn joined<'a>(text: &'a str, first: &'a str, last: &'a str) -> &'a str {
    let offset = |part: &str| part.as_ptr().addr() - text.as_ptr().addr();
    text.get(offset(first)..offset(last) + last.len()).unwrap_or(first)
}

/// Returns true if a statement has enough content to be an answer.
fn answers(sentence: &str) -> bool {
    words::content(sentence).len() >= LEAST_CONTENT
}

fn act(sentence: &str, said: &str) -> Option<Act> {
    let behind = |patterns: &[&str]| {
        patterns.iter().find_map(|pattern| {
            let (at, _) = said
                .match_indices(pattern)
                .find(|(at, _)| said[..*at].ends_with(' ') && said[at + pattern.len()..].starts_with(' '))?;
            Some(&said[at + pattern.len()..])
        })
    };
    if let Some(rest) = behind(PROMISES).filter(|_| !words::is_question(sentence)) {
        return (!starts_with_any(rest, NO_PROMISES)).then_some(Act::Promise);
    }
    let rest = behind(REQUESTS)?;
    // A final "please" makes a request too: then the whole sentence is used.
    let whole = if rest.trim().is_empty() { said } else { rest };
    (!holds_any(whole, NO_REQUESTS)).then_some(Act::Request)
}

/// The speaker that is not `speaker`, if there are exactly two.
fn other(turns: &[&Turn], speaker: Option<&str>) -> Option<String> {
    let labels: BTreeSet<&str> =
        turns.iter().filter_map(|turn| turn.speaker.as_deref()).filter(|label| !label.is_empty()).collect();
    let mut others = labels.iter().filter(|label| Some(**label) != speaker);
    let only = others.next().filter(|_| labels.len() == 2 && speaker.is_some())?;
    Some((*only).to_owned())
}

fn holds_any(said: &str, phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| service::holds(said, phrase))
}

/// Returns true if `said` begins with one of the phrases.
fn starts_with_any(said: &str, phrases: &[&str]) -> bool {
    let said = said.trim_start();
    phrases.iter().any(|phrase| said.strip_prefix(phrase).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')))
}

#[cfg(test)]
mod tests;
