//! A summary by extraction: the passages that together hold most of what a conversation is about.
//!
//! Knows no prompt. Turns are cut into passages of whole sentences and cleaned of the sounds of speech. A content word
//! weighs by how often it is said (log), how few passages say it (log), and more if several speakers say it; passages
//! are taken greedily by the weight they add for their length, until a budget of words that grows with the conversation
//! and levels off (budgeted submodular coverage, Lin and Bilmes, 2010). What opens a conversation counts for more.

use std::collections::HashMap;

use super::words;
use crate::types::{Turn, TurnNo};

/// Words of a passage, where its sentences allow.
const PASSAGE_WORDS: usize = 30;
/// Words of a summary of a conversation without end.
const MOST_WORDS: f64 = 130.0;
/// Words of conversation over which the summary grows to 63 % of [`MOST_WORDS`].
const GROWTH_WORDS: f64 = 550.0;
/// How far one passage may go over the budget.
const OVER: f64 = 1.2;
/// How a passage's length discounts what it adds.
const LENGTH_POWER: f64 = 0.5;
/// Weight of a word that was covered before.
const REPEATED: f64 = 0.1;
/// Of a word that several speakers say.
const SHARED: f64 = 1.3;
/// Of a word that only one passage says.
const ONCE: f64 = 0.5;
/// Of a question, against what answers it.
const ASKED: f64 = 0.7;
/// Of the opening, and over which part of the turns that fades.
const OPENING: f64 = 1.0;
const OPENING_PART: f64 = 0.1;
/// Passages shorter than this many words are left aside where there are many.
const SHORT_WORDS: usize = 5;
const MANY_PASSAGES: usize = 20;

/// A passage that was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Passage {
    /// The turn that it is from.
    pub turn: TurnNo,
    /// Its place among all passages, in reading order.
    pub place: usize,
    /// Who said it.
    pub speaker: Option<String>,
    /// Cleaned of the sounds of speech.
    pub text: String,
    /// As it stands in the turn.
    pub verbatim: String,
    /// What it added when it was chosen.
    pub score: f64,
}

/// The passages that sum up `turns`, in reading order. At least one, if any turn has words.
pub fn extract(turns: &[&Turn]) -> Vec<Passage> {
    let passages = passages(turns);
    let total: usize = turns.iter().map(|turn| words::count(&turn.text)).sum();
    let budget = budget(total);
    let field = Field::new(turns, &passages);
    let mut covered = vec![false; field.weights.len()];
    let mut left: Vec<usize> = (0..passages.len()).collect();
    let mut chosen: Vec<Passage> = Vec::new();
    let mut used = 0.0;
    while used < budget * 0.9 {
        let fits = |index: &usize| chosen.is_empty() || used + field.lengths[*index] <= budget * OVER;
        let gains = left.iter().filter(|index| fits(index)).map(|index| (*index, field.gain(*index, &covered)));
        // Of equal gains the earlier passage.
        let Some((best, score)) = gains.reduce(|one, other| if other.1 > one.1 { other } else { one }) else { break };
        if score <= 0.0 && !chosen.is_empty() {
            break;
        }
        for word in &field.words[best] {
            covered[*word] = true;
        }
        used += field.lengths[best];
        left.retain(|index| *index != best);
        chosen.push(Passage { score, ..passages[best].clone() });
    }
    chosen.sort_by_key(|passage| passage.place);
    chosen
}

/// Words of a summary of a conversation of `total` words: about a quarter of a short one, levelling off.
fn budget(total: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "words of a conversation")]
    let total = total as f64;
    MOST_WORDS * (1.0 - (-total / GROWTH_WORDS).exp())
}

/// All passages, in reading order.
fn passages(turns: &[&Turn]) -> Vec<Passage> {
    let mut passages: Vec<Passage> = Vec::new();
    for turn in turns {
        let mut open: Option<(String, &str)> = None;
        let mut close = |open: Option<(String, &str)>| {
            let Some((text, verbatim)) = open else { return };
            let (place, speaker, verbatim) = (passages.len(), turn.speaker.clone(), verbatim.to_owned());
            passages.push(Passage { turn: turn.turn, place, speaker, text, verbatim, score: 0.0 });
        };
        let source = turn.text.as_str();
        for sentence in words::sentences(source) {
            let clean = words::cleaned(sentence);
            if clean.is_empty() {
                continue;
            }
            let fits = |text: &str| words::count(text) + words::count(&clean) <= PASSAGE_WORDS;
            match open.take() {
                Some((text, verbatim)) if fits(&text) => {
                    open = Some((format!("{text} {clean}"), joined(source, verbatim, sentence)));
                }
                before => {
                    close(before);
                    open = Some((clean, sentence));
                }
            }
        }
        close(open);
    }
    passages
}

/// The part of `source` from the start of `first` to the end of `last`, both slices of it.
fn joined<'a>(source: &'a str, first: &'a str, last: &'a str) -> &'a str {
    let offset = |slice: &str| slice.as_ptr().addr() - source.as_ptr().addr();
    source.get(offset(first)..offset(last) + last.len()).unwrap_or(first)
}

/// The words of all passages and what they weigh.
struct Field {
    /// Different words of each passage.
    words: Vec<Vec<usize>>,
    weights: Vec<f64>,
    lengths: Vec<f64>,
    /// What its place and form make of a passage.
    factors: Vec<f64>,
}

impl Field {
    fn new(turns: &[&Turn], passages: &[Passage]) -> Self {
        let mut ids: HashMap<String, usize> = HashMap::new();
        let mut said: Vec<f64> = Vec::new();
        let mut passages_with: Vec<f64> = Vec::new();
        let mut speakers: Vec<(Option<&str>, bool)> = Vec::new();
        let mut words: Vec<Vec<usize>> = Vec::with_capacity(passages.len());
        for passage in passages {
            let speaker = passage.speaker.as_deref();
            let mut own: Vec<usize> = Vec::new();
            for word in words::content(&passage.text) {
                let next = ids.len();
                let id = *ids.entry(word).or_insert(next);
                if id == next {
                    said.push(0.0);
                    passages_with.push(0.0);
                    speakers.push((speaker, false));
                }
                said[id] += 1.0;
                speakers[id].1 |= speakers[id].0 != speaker;
                own.push(id);
            }
            own.sort_unstable();
            own.dedup();
            for id in &own {
                passages_with[*id] += 1.0;
            }
            words.push(own);
        }
        #[expect(clippy::cast_precision_loss, reason = "passages of a conversation")]
        let count = passages.len() as f64;
        let weight = |id: usize| {
            let rare = ((count + 1.0) / (passages_with[id] + 0.5)).ln();
            let shared = if speakers[id].1 { SHARED } else { 1.0 };
            let once = if passages_with[id] > 1.0 { 1.0 } else { ONCE };
            said[id].ln_1p() * rare * shared * once
        };
        let weights = (0..said.len()).map(weight).collect();
        #[expect(clippy::cast_precision_loss, reason = "words of a passage")]
        let lengths: Vec<f64> = passages.iter().map(|passage| words::count(&passage.text).max(1) as f64).collect();
        let factors = factors(turns, passages);
        Self { words, weights, lengths, factors }
    }

    /// What a passage adds for its length.
    fn gain(&self, index: usize, covered: &[bool]) -> f64 {
        let worth = |word: &usize| self.weights[*word] * if covered[*word] { REPEATED } else { 1.0 };
        let sum: f64 = self.words[index].iter().map(worth).sum();
        sum * self.factors[index] / (self.lengths[index] + 3.0).powf(LENGTH_POWER)
    }
}

fn factors(turns: &[&Turn], passages: &[Passage]) -> Vec<f64> {
    #[expect(clippy::cast_precision_loss, reason = "turns of a conversation")]
    let fade = OPENING_PART * turns.len() as f64 + 1.0;
    let mut at = 0;
    let mut factors = Vec::with_capacity(passages.len());
    for passage in passages {
        while turns.get(at).is_some_and(|turn| turn.turn != passage.turn) {
            at += 1;
        }
        #[expect(clippy::cast_precision_loss, reason = "turns of a conversation")]
        let opening = 1.0 + OPENING * (-(at as f64) / fade).exp();
        let asked = if passage.text.ends_with(['?', '？']) { ASKED } else { 1.0 };
        let short = words::count(&passage.text) < SHORT_WORDS && passages.len() > MANY_PASSAGES;
        factors.push(if short { 0.0 } else { opening * asked });
    }
    factors
}
