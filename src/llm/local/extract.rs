//! A summary by extraction: a headline, and the sentences that together hold most of what a conversation is about.
//!
//! Knows no prompt. Sentences are cleaned of the sounds of speech. A word of content weighs by how often it is said (log)
//! and by how few sentences say it (log), more if several speakers say it, and less if only one sentence does. Sentences
//! are taken one at a time, each time the one that adds most weight for its length, until a budget of words that grows
//! with the conversation and levels off (budgeted submodular coverage, Lin and Bilmes, 2010). A sentence near the start
//! counts for more, and so does an outcome, the more the later it is; courtesy counts for little.
//!
//! The headline says what the conversation is about now. It is chosen when half of the points are: the points keep the
//! best sentences, and one of the others, late and with an outcome if possible, becomes the headline.
//!
//! `scripts/eval-local` measures the result. The constants were chosen on dialogues and meetings with human summaries; they
//! have broad optima there.

use std::collections::HashMap;

use super::{clean, outcome, service, words};
use crate::base::text;
use crate::types::{Turn, TurnNo};

/// Words of the points of a conversation without end.
const MOST_WORDS: f64 = 120.0;
/// Words of conversation over which the points grow to 63 % of [`MOST_WORDS`].
const GROWTH_WORDS: f64 = 500.0;
/// How far one sentence may go over the budget.
const OVER: f64 = 1.2;
/// Share of the budget that the points use before the headline is chosen.
const BEFORE_HEADLINE: f64 = 0.5;
/// How a sentence's length discounts what it adds to the points.
const LENGTH_POWER: f64 = 0.4;
/// Added to each length, in words, so that a few words without much content do not count as dense.
const LENGTH_BASE: f64 = 3.0;
/// Weight of a word that was covered before.
const REPEATED: f64 = 0.4;
/// Weight of a word that several speakers say.
const SHARED: f64 = 1.7;
/// Weight of a word that only one sentence says.
const ONCE: f64 = 0.6;
/// Weight of a question. Those of the one who serves are routine and do not count.
const ASKED: f64 = 0.65;
/// What the first turn adds to a sentence's weight, and over which part of the turns that fades to 37 %.
const OPENING: f64 = 2.5;
const OPENING_PART: f64 = 0.12;
/// What a full outcome in the last turn adds to a sentence's weight; more in a conversation in which somebody serves,
/// because outcomes are what it is for.
const OUTCOME: f64 = 0.3;
const OUTCOME_OF_SERVICE: f64 = 2.0;
/// A sentence with fewer words, or fewer words of content, is a fragment: no point and no headline.
const LEAST_WORDS: usize = 4;
const LEAST_CONTENT: usize = 2;
/// Words of a headline: at most, and from how many on it tells enough.
pub(super) const HEADLINE_WORDS: usize = 20;
const HEADLINE_LEAST: usize = 6;
/// Weight of a headline that is shorter, or that must be cut.
const UNFIT: f64 = 0.5;
/// By how much the newest sentence outweighs the oldest as a headline.
const RECENT: f64 = 2.0;
/// A point that shares this part of its words of content with the headline, or the headline with it, says the same.
const SAME: f64 = 0.6;

/// One or several sentences of a turn that stand beside each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Passage {
    /// The turn that it is from.
    pub turn: TurnNo,
    /// Who said it.
    pub speaker: Option<String>,
    /// Cleaned of the sounds of speech.
    pub text: String,
    /// As it stands in the turn.
    pub verbatim: String,
    /// How much it weighed when it was chosen.
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
    let field = Field::new(turns);
    let mut choice = Choice::new(&field);
    choice.fill(BEFORE_HEADLINE);
    let headline = choice.headline();
    choice.fill(1.0);
    let headline = headline.map(|index| Passage { score: 0.0, ..field.sentences[index].passage() });
    Extract { headline, points: choice.points() }
}

/// Words of the points of a conversation of `total` words: about a quarter of a short one, levelling off.
fn budget(total: f64) -> f64 {
    MOST_WORDS * (1.0 - (-total / GROWTH_WORDS).exp())
}

/// A sentence, and what is known of it.
struct Sentence<'a> {
    turn: &'a Turn,
    verbatim: &'a str,
    /// Cleaned. Never empty.
    text: String,
    /// Its different words of content.
    words: Vec<usize>,
    /// Words.
    length: f64,
    /// The place of its turn, 0 to below 1.
    position: f64,
    outcome: f64,
    /// Weight as a point, without its words: its place and form. 0 if it must not be one.
    factor: f64,
    /// Weight as a headline, likewise.
    telling: f64,
}

impl Sentence<'_> {
    fn passage(&self) -> Passage {
        let (speaker, text, verbatim) = (self.turn.speaker.clone(), self.text.clone(), self.verbatim.to_owned());
        Passage { turn: self.turn.turn, speaker, text, verbatim, score: 0.0 }
    }

    /// The share of the other's words that it says too.
    fn says(&self, other: &Self) -> f64 {
        let shared = other.words.iter().filter(|word| self.words.binary_search(word).is_ok()).count();
        ratio(shared, other.words.len().max(1))
    }
}

/// All sentences in reading order, and what their words weigh.
struct Field<'a> {
    sentences: Vec<Sentence<'a>>,
    weights: Vec<f64>,
    budget: f64,
}

impl<'a> Field<'a> {
    fn new(turns: &[&'a Turn]) -> Self {
        let servers = service::servers(turns);
        let mut vocabulary = Vocabulary::default();
        let mut sentences: Vec<Sentence<'a>> = Vec::new();
        let mut total = 0;
        for (at, turn) in turns.iter().enumerate() {
            total += words::count(&turn.text);
            for verbatim in words::sentences(&turn.text) {
                let text = clean::without_opening(&clean::cleaned(verbatim));
                if text.is_empty() {
                    continue;
                }
                let words = vocabulary.read(&text, turn.speaker.as_deref());
                let (length, position) = (ratio(words::count(&text).max(1), 1), ratio(at, turns.len()));
                let outcome = outcome::of(&text);
                let (factor, telling) = (0.0, 0.0);
                sentences.push(Sentence { turn, verbatim, text, words, length, position, outcome, factor, telling });
            }
        }
        let weights = vocabulary.weights(sentences.len());
        let fade = OPENING_PART + 1.0 / ratio(turns.len().max(1), 1);
        let outcomes = if servers.is_empty() { OUTCOME } else { OUTCOME_OF_SERVICE };
        for sentence in &mut sentences {
            let serves = sentence.turn.speaker.as_deref().is_some_and(|speaker| servers.contains(&speaker));
            let asks = words::is_question(&sentence.text);
            let count = words::count(&sentence.text);
            let fragment = count < LEAST_WORDS || sentence.words.len() < LEAST_CONTENT;
            if fragment || (asks && serves) {
                continue;
            }
            let substance = service::substance(&sentence.text);
            let opening = 1.0 + OPENING * (-sentence.position / fade).exp();
            let settled = 1.0 + outcomes * sentence.position * sentence.outcome;
            sentence.factor = substance * opening * settled * if asks { ASKED } else { 1.0 };
            let recent = (1.0 + RECENT * sentence.position) * (1.0 + sentence.outcome);
            let whole = super::cut(&sentence.text, HEADLINE_WORDS) == sentence.text.len();
            let fit = if whole && count >= HEADLINE_LEAST { 1.0 } else { UNFIT };
            sentence.telling = if asks { 0.0 } else { substance * recent * fit };
        }
        Self { sentences, weights, budget: budget(ratio(total, 1)) }
    }
}

/// The words of content of a conversation.
#[derive(Default)]
struct Vocabulary<'a> {
    ids: HashMap<String, usize>,
    said: Vec<Said<'a>>,
}

/// What is known of a word.
struct Said<'a> {
    times: f64,
    sentences: f64,
    /// Who said it first.
    speaker: Option<&'a str>,
    /// Somebody else said it too.
    shared: bool,
}

impl<'a> Vocabulary<'a> {
    /// The different words of a sentence, sorted.
    fn read(&mut self, text: &str, speaker: Option<&'a str>) -> Vec<usize> {
        let mut own = Vec::new();
        for word in words::content(text) {
            let next = self.ids.len();
            let id = *self.ids.entry(word).or_insert(next);
            if id == next {
                self.said.push(Said { times: 0.0, sentences: 0.0, speaker, shared: false });
            }
            let said = &mut self.said[id];
            said.times += 1.0;
            said.shared |= said.speaker != speaker;
            own.push(id);
        }
        own.sort_unstable();
        own.dedup();
        for id in &own {
            self.said[*id].sentences += 1.0;
        }
        own
    }

    fn weights(&self, sentences: usize) -> Vec<f64> {
        let weight = |said: &Said<'_>| {
            let rare = ((ratio(sentences, 1) + 1.0) / (said.sentences + 0.5)).ln();
            let once = if said.sentences > 1.0 { 1.0 } else { ONCE };
            said.times.ln_1p() * rare * once * if said.shared { SHARED } else { 1.0 }
        };
        self.said.iter().map(weight).collect()
    }
}

/// Sentences that are chosen one after the other.
struct Choice<'a> {
    field: &'a Field<'a>,
    /// Sentences that may still be chosen.
    open: Vec<bool>,
    covered: Vec<bool>,
    /// The points, with what each added.
    chosen: Vec<(usize, f64)>,
    /// Words of the points.
    used: f64,
}

impl<'a> Choice<'a> {
    fn new(field: &'a Field<'a>) -> Self {
        let (open, covered) = (vec![true; field.sentences.len()], vec![false; field.weights.len()]);
        Self { field, open, covered, chosen: Vec::new(), used: 0.0 }
    }

    /// Adds points until they use this part of the budget.
    fn fill(&mut self, part: f64) {
        let budget = self.field.budget;
        while self.used < budget * part {
            let fits = |sentence: &Sentence<'_>| self.used + sentence.length <= budget * OVER || self.chosen.is_empty();
            let gain = |sentence: &Sentence<'_>| {
                let room = if fits(sentence) { sentence.factor } else { 0.0 };
                room * self.weight(sentence) / (sentence.length + LENGTH_BASE).powf(LENGTH_POWER)
            };
            // Of equal gains the earlier sentence.
            let Some((best, score)) = self.best(gain, |other, best| other > best) else { break };
            self.take(best);
            self.used += self.field.sentences[best].length;
            self.chosen.push((best, score));
        }
    }

    /// Chooses the headline: of the sentences that no point says, the most telling one. Where none of them can be one, a
    /// point becomes the headline.
    fn headline(&mut self) -> Option<usize> {
        let says_a_point = |sentence: &Sentence<'_>| {
            let points = self.chosen.iter().map(|(index, _)| &self.field.sentences[*index]);
            points.into_iter().any(|point| sentence.says(point) >= SAME || point.says(sentence) >= SAME)
        };
        let telling = |sentence: &Sentence<'_>| {
            let new = if says_a_point(sentence) { 0.0 } else { sentence.telling };
            new * self.weight(sentence) / (sentence.length + LENGTH_BASE)
        };
        let best = self.best(telling, |other, best| other >= best).map(|(index, _)| index);
        let sentences = &self.field.sentences;
        let headline = best.or_else(|| {
            let (point, _) = self.chosen.pop()?;
            self.used -= sentences[point].length;
            Some(point)
        });
        // Nobody said anything of content.
        let headline = headline.or(if sentences.is_empty() { None } else { Some(0) })?;
        self.take(headline);
        for (open, sentence) in self.open.iter_mut().zip(sentences) {
            *open &= sentences[headline].says(sentence) < SAME;
        }
        Some(headline)
    }

    /// The open sentence of the highest score above 0.
    fn best(&self, score: impl Fn(&Sentence<'_>) -> f64, better: fn(f64, f64) -> bool) -> Option<(usize, f64)> {
        let open = self.field.sentences.iter().enumerate().filter(|(index, _)| self.open[*index]);
        let scored = open.map(|(index, sentence)| (index, score(sentence))).filter(|(_, score)| *score > 0.0);
        scored.reduce(|best, other| if better(other.1, best.1) { other } else { best })
    }

    /// What the words of a sentence weigh now.
    fn weight(&self, sentence: &Sentence<'_>) -> f64 {
        let weight = |word: &usize| self.field.weights[*word] * if self.covered[*word] { REPEATED } else { 1.0 };
        sentence.words.iter().map(weight).sum()
    }

    fn take(&mut self, index: usize) {
        self.open[index] = false;
        for word in &self.field.sentences[index].words {
            self.covered[*word] = true;
        }
    }

    /// The points in reading order. Those that stand beside each other in a turn are one.
    fn points(mut self) -> Vec<Passage> {
        self.chosen.sort_unstable_by_key(|(index, _)| *index);
        let sentences = &self.field.sentences;
        let beside = |one: &(usize, f64), next: &(usize, f64)| {
            one.0 + 1 == next.0 && sentences[one.0].turn.turn == sentences[next.0].turn.turn
        };
        let point = |run: &[(usize, f64)]| {
            let own = || run.iter().map(|(index, _)| &sentences[*index]);
            let (first, last) = (own().next()?, own().next_back()?);
            let text = text::join(own().map(|sentence| sentence.text.as_str()));
            let score = run.iter().map(|(_, score)| *score).fold(0.0, f64::max);
            let verbatim = joined(&first.turn.text, first.verbatim, last.verbatim).to_owned();
            Some(Passage { text, verbatim, score, ..first.passage() })
        };
        self.chosen.chunk_by(beside).filter_map(point).collect()
    }
}

/// The part of `source` from the start of `first` to the end of `last`, both slices of it.
fn joined<'a>(source: &'a str, first: &'a str, last: &'a str) -> &'a str {
    let offset = |slice: &str| slice.as_ptr().addr() - source.as_ptr().addr();
    source.get(offset(first)..offset(last) + last.len()).unwrap_or(first)
}

#[expect(clippy::cast_precision_loss, reason = "words, sentences and turns of a conversation")]
fn ratio(one: usize, other: usize) -> f64 {
    one as f64 / other as f64
}
