//! A summary by extraction: a headline, and the passages that together hold most of what a conversation is about.
//!
//! Knows no prompt. Turns are cut into passages of whole sentences and cleaned of the sounds of speech. A content word
//! weighs by how often it is said (log), how few passages say it (log), and more if several speakers say it; passages
//! are taken greedily by the weight they add for their length, until a budget of words that grows with the conversation
//! and levels off (budgeted submodular coverage, Lin and Bilmes, 2010). What opens a conversation counts for more, and
//! so does an outcome near its end; courtesy counts for little.
//!
//! The headline is one sentence: what the conversation is about now. Its words count as covered for the points, and the
//! sentence is no part of any.

use std::collections::{HashMap, HashSet};

use super::{outcome, service, words};
use crate::types::{Turn, TurnNo};

/// Words of a passage, where its sentences allow.
const PASSAGE_WORDS: usize = 30;
/// Words of a summary of a conversation without end.
const MOST_WORDS: f64 = 150.0;
/// Words of conversation over which the summary grows to 63 % of [`MOST_WORDS`].
const GROWTH_WORDS: f64 = 635.0;
/// How far one passage may go over the budget.
const OVER: f64 = 1.2;
/// How a passage's length discounts what it adds.
const LENGTH_POWER: f64 = 0.5;
/// Weight of a word that was covered before.
const REPEATED: f64 = 0.5;
/// Of a word that several speakers say.
const SHARED: f64 = 1.3;
/// Of a word that only one passage says.
const ONCE: f64 = 0.5;
/// Of a question, against what answers it; and of one that is asked by who serves, which is mostly routine, once more.
const ASKED: f64 = 0.7;
const ROUTINE: f64 = 0.4;
/// Of the opening, and over which part of the turns that fades.
const OPENING: f64 = 2.5;
const OPENING_PART: f64 = 0.15;
/// Of an outcome in the last part of the turns; in a conversation in which somebody serves, outcomes are what it is for.
const OUTCOME: f64 = 0.6;
const OUTCOME_OF_SERVICE: f64 = 2.0;
/// The last part of the turns, in which outcomes count in full; and from where on they begin to count.
const LAST_PART: f64 = 0.5;
const OUTCOMES_FROM: f64 = 0.25;
/// An outcome of this much is taken before all other points, where the summary has room for this many words or somebody
/// serves.
const SETTLED: f64 = 0.5;
const ROOM_WORDS: f64 = 60.0;
/// Share of a sentence that must be more than courtesy, or it is no point; of a headline, what courtesy leaves at least.
const COURTESY: f64 = 0.3;
/// Passages shorter than this many words are left aside where there are many.
const SHORT_WORDS: usize = 5;
const MANY_PASSAGES: usize = 20;
/// A passage with fewer words of content is no point.
const CONTENT_WORDS: usize = 2;
/// Words of a headline, and what is too short to be one.
pub(super) const HEADLINE_WORDS: usize = 20;
const HEADLINE_SHORT: usize = 6;
const HEADLINE_FRAGMENT: usize = 4;
/// How a headline's length discounts what it says.
const HEADLINE_LENGTH_POWER: f64 = 0.7;
/// By how much a word that was said last outweighs one that was said first.
const RECENT: f64 = 1.0;
/// By how much the newest sentence outweighs the oldest.
const RECENT_SENTENCE: f64 = 0.75;
/// Of an outcome in a headline.
const HEADLINE_OUTCOME: f64 = 0.5;
/// A point whose content words are in the headline up to this share says it again.
const SAME: f64 = 0.6;

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

/// A summary.
#[derive(Debug, Clone, PartialEq)]
pub struct Extract {
    /// The sentence that says what it is about; `None` where nobody said a word.
    pub headline: Option<Passage>,
    /// The other passages that sum it up, in reading order. None of them repeats the headline.
    pub points: Vec<Passage>,
}

/// Sums up `turns`.
pub fn extract(turns: &[&Turn]) -> Extract {
    let sentences = passages(turns, 0, None);
    let Some(headline) = headline(turns, &sentences) else { return Extract { headline: None, points: Vec::new() } };
    let total: usize = turns.iter().map(|turn| words::count(&turn.text)).sum();
    let passages = passages(turns, PASSAGE_WORDS, Some(&headline));
    let field = Field::new(turns, &passages);
    let points = points(turns, &field, &passages, &headline, budget(total));
    Extract { headline: Some(headline), points }
}

/// The passages that add most to the headline within `budget` words, in reading order.
fn points(turns: &[&Turn], field: &Field, passages: &[Passage], headline: &Passage, budget: f64) -> Vec<Passage> {
    let said: HashSet<String> = words::content(&headline.text).into_iter().collect();
    let mut covered = vec![false; field.weights.len()];
    for id in said.iter().filter_map(|word| field.ids.get(word)) {
        covered[*id] = true;
    }
    let repeats = |passage: &Passage| {
        let content: HashSet<String> = words::content(&passage.text).into_iter().collect();
        let shared = content.intersection(&said).count();
        #[expect(clippy::cast_precision_loss, reason = "words of a passage")]
        let share = shared as f64 / content.len().max(1) as f64;
        share >= SAME
    };
    let mut left: Vec<usize> = (0..passages.len()).filter(|index| !repeats(&passages[*index])).collect();
    let mut chosen: Vec<Passage> = Vec::new();
    let mut used = 0.0;
    let position = positions(turns, passages);
    let settled = |index: &usize| is_late(position[*index]) && outcome::of(&passages[*index].text) >= SETTLED;
    // One of the outcomes first, where there is room or they are what it is for.
    let mut first = budget >= ROOM_WORDS || !field.servers.is_empty();
    while used < budget * 0.9 {
        let fits = |index: &usize| {
            let length = used + field.lengths[*index];
            length <= budget * OVER || (chosen.is_empty() && !first)
        };
        let wanted = |index: &usize| fits(index) && (!first || settled(index));
        let gains = left.iter().filter(|index| wanted(index)).map(|index| (*index, field.gain(*index, &covered)));
        // Of equal gains the earlier passage.
        let best = gains.reduce(|one, other| if other.1 > one.1 { other } else { one }).filter(|(_, gain)| *gain > 0.0);
        let Some((best, score)) = best else {
            if std::mem::take(&mut first) {
                continue;
            }
            break;
        };
        first = false;
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

/// The sentence that says best what the conversation is about now: its topic by the words that were said lately, an outcome
/// where there is one.
fn headline(turns: &[&Turn], sentences: &[Passage]) -> Option<Passage> {
    let field = Field::new(turns, sentences);
    let position = positions(turns, sentences);
    // When a word was said last, 0 to 1.
    let mut latest = vec![0.0_f64; field.weights.len()];
    for (own, position) in field.words.iter().zip(&position) {
        for word in own {
            latest[*word] = latest[*word].max(*position);
        }
    }
    let score = |index: usize| {
        let text = &sentences[index].text;
        let topic: f64 =
            field.words[index].iter().map(|word| field.weights[*word] * (1.0 + RECENT * latest[*word])).sum();
        let length = field.lengths[index];
        let asked = field.asked(&sentences[index]);
        let outcome = 1.0 + HEADLINE_OUTCOME * outcome::of(text) * (0.5 + position[index]);
        let whole = if words::count(text) > HEADLINE_WORDS { 0.6 } else { 1.0 };
        let short = match words::count(text) {
            0..HEADLINE_FRAGMENT => 0.3,
            HEADLINE_FRAGMENT..HEADLINE_SHORT => 0.6,
            _ => 1.0,
        };
        let polite = service::substance(text).max(COURTESY);
        let recent = 1.0 + RECENT_SENTENCE * position[index];
        topic / (length + 3.0).powf(HEADLINE_LENGTH_POWER)
            * asked
            * asked.max(ASKED)
            * outcome
            * recent
            * whole
            * short
            * polite
    };
    let scored = (0..sentences.len()).map(|index| (index, score(index)));
    let (best, score) = scored.reduce(|one, other| if other.1 >= one.1 { other } else { one })?;
    Some(Passage { score, ..sentences[best].clone() })
}

/// Words of a summary of a conversation of `total` words: about a quarter of a short one, levelling off.
fn budget(total: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "words of a conversation")]
    let total = total as f64;
    MOST_WORDS * (1.0 - (-total / GROWTH_WORDS).exp())
}

/// All passages of up to `most` words, in reading order, without the sentence `but`. Of no words: single sentences.
fn passages(turns: &[&Turn], most: usize, but: Option<&Passage>) -> Vec<Passage> {
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
            let clean = super::clean::cleaned(sentence);
            let left_out = but.is_some_and(|but| but.turn == turn.turn && but.verbatim == sentence);
            if clean.is_empty() || left_out {
                // What stands on both sides of the headline is not one passage.
                if left_out {
                    close(open.take());
                }
                continue;
            }
            // Courtesy is no part of what stands beside it.
            let says = |text: &str| service::substance(text) >= COURTESY;
            let fits = |text: &str| words::count(text) + words::count(&clean) <= most && says(text) && says(&clean);
            match open.take() {
                Some((text, verbatim)) if fits(&text) => {
                    let gap = crate::base::text::gap(&text, &clean);
                    open = Some((format!("{text}{gap}{clean}"), joined(source, verbatim, sentence)));
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
    ids: HashMap<String, usize>,
    /// Different words of each passage.
    words: Vec<Vec<usize>>,
    weights: Vec<f64>,
    lengths: Vec<f64>,
    /// What its place and form make of a passage.
    factors: Vec<f64>,
    /// The speakers who serve.
    servers: Vec<String>,
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
        let servers = service::servers(turns).into_iter().map(str::to_owned).collect();
        let mut field = Self { ids, words, weights, lengths, factors: Vec::new(), servers };
        field.factors = field.factors(turns, passages);
        field
    }

    /// What it takes from a passage to be a question.
    fn asked(&self, passage: &Passage) -> f64 {
        let serves = passage.speaker.as_ref().is_some_and(|speaker| self.servers.contains(speaker));
        match (words::is_question(&passage.text), serves) {
            (true, true) => ASKED * ROUTINE,
            (true, false) => ASKED,
            (false, _) => 1.0,
        }
    }

    fn factors(&self, turns: &[&Turn], passages: &[Passage]) -> Vec<f64> {
        #[expect(clippy::cast_precision_loss, reason = "turns of a conversation")]
        let fade = OPENING_PART + 1.0 / turns.len().max(1) as f64;
        let outcomes = if self.servers.is_empty() { OUTCOME } else { OUTCOME_OF_SERVICE };
        let factor = |(passage, position): (&Passage, f64)| {
            let opening = 1.0 + OPENING * (-position / fade).exp();
            let late = ((position - OUTCOMES_FROM) / (1.0 - LAST_PART - OUTCOMES_FROM)).clamp(0.0, 1.0);
            let settled = 1.0 + outcomes * late * outcome::of(&passage.text);
            let substance = service::substance(&passage.text);
            let short = words::count(&passage.text) < SHORT_WORDS && passages.len() > MANY_PASSAGES;
            let empty = short || substance < COURTESY || words::content(&passage.text).len() < CONTENT_WORDS;
            if empty { 0.0 } else { opening * self.asked(passage) * settled * substance }
        };
        passages.iter().zip(positions(turns, passages)).map(factor).collect()
    }

    /// What a passage adds for its length.
    fn gain(&self, index: usize, covered: &[bool]) -> f64 {
        let worth = |word: &usize| self.weights[*word] * if covered[*word] { REPEATED } else { 1.0 };
        let sum: f64 = self.words[index].iter().map(worth).sum();
        sum * self.factors[index] / (self.lengths[index] + 3.0).powf(LENGTH_POWER)
    }
}

fn is_late(position: f64) -> bool {
    position >= 1.0 - LAST_PART
}

/// Where in the conversation each passage stands, 0 to below 1, by turns.
fn positions(turns: &[&Turn], passages: &[Passage]) -> Vec<f64> {
    let mut at = 0;
    let position = |passage: &Passage| {
        while turns.get(at).is_some_and(|turn| turn.turn != passage.turn) {
            at += 1;
        }
        #[expect(clippy::cast_precision_loss, reason = "turns of a conversation")]
        let position = at as f64 / turns.len().max(1) as f64;
        position
    };
    passages.iter().map(position).collect()
}
