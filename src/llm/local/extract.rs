//! A summary by extraction: a headline, and the sentences that together cover most of what a conversation is about.
//!
//! Knows no prompt. Filler sounds are removed from sentences. The weight of a content word grows with how often it is
//! said (logarithmically) and falls with how many sentences contain it (logarithmically); it is higher if several
//! speakers say it, and lower if only one sentence contains it. Sentences are chosen one at a time, each time the one
//! that adds most weight for its length, until a budget of words is used up, which grows with the conversation and
//! levels off (budgeted submodular coverage, Lin and Bilmes, 2010). A sentence near the start counts for more, and so
//! does an outcome, the more the later it is; polite phrases count for little.
//!
//! The headline says what the conversation is about now: a late sentence, with an outcome if possible. It is chosen
//! first, and its words belong to the budget. A meeting of several speakers has no such sentence: its headline names
//! its topics (see [`super::topics`]), and its points are sentences about them with few disfluencies.
//!
//! `scripts/eval-local` measures the result. The constants were chosen on dialogues and meetings with human summaries;
//! small changes of them hardly change the result.

use std::collections::HashMap;

use super::{clean, outcome, service, topics, words};
use crate::base::text;
use crate::types::{Turn, TurnNo};

/// Upper limit of the number of words in the summary, which very long conversations approach.
const MOST_WORDS: f64 = 130.0;
/// Words of a conversation after which the summary has 63 % of [`MOST_WORDS`].
const GROWTH_WORDS: f64 = 500.0;
/// Factor of the budget of a conversation in which somebody serves a customer: it has a reason and an outcome.
const SERVICE: f64 = 1.7;
/// Factor by which one sentence may exceed the budget.
const OVER: f64 = 1.2;
/// Exponent of a sentence's length, by which its gain is divided.
const LENGTH_POWER: f64 = 0.4;
/// Added to each length, in words, so that a few words without much content do not count as dense.
const LENGTH_BASE: f64 = 3.0;
/// Weight factor of a word that a chosen sentence already has.
const REPEATED: f64 = 0.4;
/// Weight factor of a word that several speakers say.
const SHARED: f64 = 2.2;
/// Weight factor of a word that only one sentence has.
const ONCE: f64 = 0.6;
/// Weight factor of a question. Questions of the speaker who serves a customer are routine and do not count.
const ASKED: f64 = 0.65;
/// Amount that the first turn adds to a sentence's weight. [`OPENING_PART`] is the share of the turns over which it
/// falls to 37 %.
const OPENING: f64 = 1.5;
const OPENING_PART: f64 = 0.12;
/// Amount that an outcome in the last turn adds to a sentence's weight. It is larger in a conversation in which
/// somebody serves a customer, because outcomes are its purpose.
const OUTCOME: f64 = 0.3;
const OUTCOME_OF_SERVICE: f64 = 2.0;
/// A sentence with fewer words, or fewer content words, is a fragment and neither a point nor a headline.
const LEAST_WORDS: usize = 4;
const LEAST_CONTENT: usize = 2;
/// Lengths, in words, of a sentence that can be a point of a meeting: a longer one expresses several thoughts.
const MEETING_WORDS: std::ops::RangeInclusive<usize> = 6..=40;
/// A sentence of a meeting with this many disfluencies is not a point, because it is hard to read.
const STUMBLING: usize = 3;
/// Maximum number of words in a headline, and the number from which on it is informative enough.
pub(super) const HEADLINE_WORDS: usize = 20;
const HEADLINE_LEAST: usize = 6;
/// Weight factor of a headline that is too short or must be cut.
const UNFIT: f64 = 0.5;
/// Factor by which the newest sentence outweighs the oldest as a headline.
const RECENT: f64 = 2.0;
/// A point and the headline say the same if either shares this part of its content words with the other.
const SAME: f64 = 0.6;

/// One or several adjacent sentences of a turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Passage {
    pub turn: TurnNo,
    /// The label of the speaker.
    pub speaker: Option<String>,
    /// The text without filler sounds.
    pub text: String,
    /// The text as it is in the turn.
    pub verbatim: String,
    /// The passage's weight when it was chosen.
    pub score: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Extract {
    /// The sentence that says what the conversation is about; `None` if nobody said a word.
    pub headline: Option<Passage>,
    /// The passages of the summary besides the headline, in reading order. None of them repeats the headline.
    pub points: Vec<Passage>,
}

/// Summarises `turns`.
pub fn extract(turns: &[&Turn]) -> Extract {
    let field = Field::new(turns);
    let mut choice = Choice::new(&field);
    if let Some(topics) = &field.topics {
        choice.used += ratio(words::count(topics), 1);
        choice.fill();
        let best = choice.chosen.iter().max_by(|one, other| one.1.total_cmp(&other.1)).map(|(index, _)| *index);
        let headline =
            best.map(|index| Passage { speaker: None, text: topics.clone(), ..field.sentences[index].passage() });
        if headline.is_some() {
            return Extract { headline, points: choice.points() };
        }
    }
    let headline = choice.headline().map(|index| field.sentences[index].passage());
    choice.fill();
    Extract { headline, points: choice.points() }
}

/// Number of words for the summary of a conversation of `total` words: about a quarter of a short one, levelling off.
fn budget(total: f64) -> f64 {
    MOST_WORDS * (1.0 - (-total / GROWTH_WORDS).exp())
}

/// A sentence and its measures.
struct Sentence<'a> {
    turn: &'a Turn,
    verbatim: &'a str,
    /// The text without filler sounds; never empty.
    text: String,
    /// The sentence's distinct content words.
    words: Vec<usize>,
    /// Number of the sentence's words.
    length: f64,
    /// Position of its turn in the conversation, from 0 to below 1.
    position: f64,
    outcome: f64,
    /// Weight as a point apart from its words: by position and form. 0 if it must not be a point.
    factor: f64,
    /// Weight as a headline, computed in the same way.
    telling: f64,
}

impl Sentence<'_> {
    fn passage(&self) -> Passage {
        let (speaker, text, verbatim) = (self.turn.speaker.clone(), self.text.clone(), self.verbatim.to_owned());
        Passage { turn: self.turn.turn, speaker, text, verbatim, score: 0.0 }
    }

    /// Weight by its form; `None` if it is a fragment or a routine question.
    fn general(&self, servers: &[&str]) -> Option<f64> {
        let serves = self.turn.speaker.as_deref().is_some_and(|speaker| servers.contains(&speaker));
        let asks = words::is_question(&self.text);
        let fragment = words::count(&self.text) < LEAST_WORDS || self.words.len() < LEAST_CONTENT;
        let routine = asks && serves;
        (!fragment && !routine).then(|| service::substance(&self.text) * if asks { ASKED } else { 1.0 })
    }

    /// Share of the other sentence's words that this one has too.
    fn says(&self, other: &Self) -> f64 {
        let shared = other.words.iter().filter(|word| self.words.binary_search(word).is_ok()).count();
        ratio(shared, other.words.len().max(1))
    }
}

/// All sentences in reading order, and the weights of their words.
struct Field<'a> {
    sentences: Vec<Sentence<'a>>,
    weights: Vec<f64>,
    budget: f64,
    /// The headline of a meeting.
    topics: Option<String>,
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
        let mut field = Self { sentences, weights, budget: budget(ratio(total, 1)), topics: None };
        let topics = if topics::is_meeting(turns) { field.topics() } else { Vec::new() };
        match topics.split_last() {
            Some((last, others)) if !others.is_empty() => {
                let ids = topics.iter().map(|topic| vocabulary.known(topic)).collect::<Vec<_>>();
                field.weigh_meeting(&servers, &ids);
                field.topics = Some(format!("The meeting is about {} and {last}.", others.join(", ")));
            }
            _ => {
                field.weigh(&servers, turns.len());
                field.budget *= if servers.is_empty() { 1.0 } else { SERVICE };
            }
        }
        field
    }

    fn topics(&self) -> Vec<String> {
        let said: Vec<(&str, Option<&str>)> =
            self.sentences.iter().map(|sentence| (sentence.text.as_str(), sentence.turn.speaker.as_deref())).collect();
        topics::of(&said)
    }

    /// Sets how much the sentences weigh as points and as the headline.
    fn weigh(&mut self, servers: &[&str], turns: usize) {
        let fade = OPENING_PART + 1.0 / ratio(turns.max(1), 1);
        let outcomes = if servers.is_empty() { OUTCOME } else { OUTCOME_OF_SERVICE };
        for sentence in &mut self.sentences {
            let Some(general) = sentence.general(servers) else { continue };
            let opening = 1.0 + OPENING * (-sentence.position / fade).exp();
            let settled = 1.0 + outcomes * sentence.position * sentence.outcome;
            sentence.factor = general * opening * settled;
            let recent = (1.0 + RECENT * sentence.position) * (1.0 + sentence.outcome);
            let whole = super::cut(&sentence.text, HEADLINE_WORDS) == sentence.text.len();
            let fit = if whole && words::count(&sentence.text) >= HEADLINE_LEAST { 1.0 } else { UNFIT };
            sentence.telling = if words::is_question(&sentence.text) { 0.0 } else { general * recent * fit };
        }
    }

    /// Sets how much the sentences of a meeting weigh as points: more if they are about its topics, each given by its words.
    fn weigh_meeting(&mut self, servers: &[&str], topics: &[Vec<usize>]) {
        for sentence in &mut self.sentences {
            let Some(general) = sentence.general(servers) else { continue };
            let stumbles = clean::stumbles(&sentence.text);
            if stumbles < STUMBLING && MEETING_WORDS.contains(&words::count(&sentence.text)) {
                let has = |topic: &&Vec<usize>| topic.iter().all(|word| sentence.words.binary_search(word).is_ok());
                let about = 1.0 + ratio(topics.iter().filter(has).count(), 1);
                sentence.factor = general * about / (1.0 + ratio(stumbles, 1));
            }
        }
    }
}

/// The content words of a conversation.
#[derive(Default)]
struct Vocabulary<'a> {
    ids: HashMap<String, usize>,
    said: Vec<Said<'a>>,
}

/// Where and by whom a word was said.
struct Said<'a> {
    times: f64,
    sentences: f64,
    /// The first speaker who said it.
    speaker: Option<&'a str>,
    /// Set if another speaker said it too.
    shared: bool,
}

impl<'a> Vocabulary<'a> {
    /// The distinct words of a sentence, sorted.
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

    /// The content words of a text that were said.
    fn known(&self, text: &str) -> Vec<usize> {
        words::content(text).iter().filter_map(|word| self.ids.get(word).copied()).collect()
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

/// The sentences that were chosen so far.
struct Choice<'a> {
    field: &'a Field<'a>,
    /// Sentences that may still be chosen.
    open: Vec<bool>,
    covered: Vec<bool>,
    /// The points, each with its gain.
    chosen: Vec<(usize, f64)>,
    /// Number of words in the points.
    used: f64,
}

impl<'a> Choice<'a> {
    fn new(field: &'a Field<'a>) -> Self {
        let (open, covered) = (vec![true; field.sentences.len()], vec![false; field.weights.len()]);
        Self { field, open, covered, chosen: Vec::new(), used: 0.0 }
    }

    /// Adds points until the budget is used up, and at least one: in a short conversation, the headline may use all of it.
    fn fill(&mut self) {
        let budget = self.field.budget;
        while self.used < budget || self.chosen.is_empty() {
            let fits = |sentence: &Sentence<'_>| self.used + sentence.length <= budget * OVER || self.chosen.is_empty();
            let gain = |sentence: &Sentence<'_>| if fits(sentence) { self.gain(sentence) } else { 0.0 };
            // Of equal gains, the earlier sentence wins.
            let Some((best, score)) = self.best(gain, |other, best| other > best) else { break };
            self.take(best);
            let sentences = &self.field.sentences;
            self.used += sentences[best].length;
            self.chosen.push((best, score));
            // A sentence that says the same again adds nothing.
            for (open, sentence) in self.open.iter_mut().zip(sentences) {
                *open &= sentence.words != sentences[best].words;
            }
        }
    }

    /// What a sentence adds as a point.
    fn gain(&self, sentence: &Sentence<'_>) -> f64 {
        sentence.factor * self.weight(sentence) / (sentence.length + LENGTH_BASE).powf(LENGTH_POWER)
    }

    /// Chooses the headline: the sentence with the highest weight as one; if none is suitable, the best point. Closes the
    /// sentences that say the same.
    fn headline(&mut self) -> Option<usize> {
        let telling =
            |sentence: &Sentence<'_>| sentence.telling * self.weight(sentence) / (sentence.length + LENGTH_BASE);
        let best = self.best(telling, |other, best| other >= best);
        let best = best.or_else(|| self.best(|sentence| self.gain(sentence), |other, best| other > best));
        let sentences = &self.field.sentences;
        // Without any of either, no sentence has any content.
        let headline = best.map(|(index, _)| index).or(if sentences.is_empty() { None } else { Some(0) })?;
        self.take(headline);
        self.used += sentences[headline].length.min(ratio(HEADLINE_WORDS, 1));
        for (open, sentence) in self.open.iter_mut().zip(sentences) {
            *open &= sentences[headline].says(sentence) < SAME && sentence.says(&sentences[headline]) < SAME;
        }
        Some(headline)
    }

    /// The open sentence with the highest score above 0.
    fn best(&self, score: impl Fn(&Sentence<'_>) -> f64, better: fn(f64, f64) -> bool) -> Option<(usize, f64)> {
        let open = self.field.sentences.iter().enumerate().filter(|(index, _)| self.open[*index]);
        let scored = open.map(|(index, sentence)| (index, score(sentence))).filter(|(_, score)| *score > 0.0);
        scored.reduce(|best, other| if better(other.1, best.1) { other } else { best })
    }

    /// The present weight of a sentence's words.
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

    /// The points in reading order. Adjacent points of one turn are joined.
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

/// The part of `source` from the start of `first` to the end of `last`; both are slices of it.
fn joined<'a>(source: &'a str, first: &'a str, last: &'a str) -> &'a str {
    let offset = |slice: &str| slice.as_ptr().addr() - source.as_ptr().addr();
    source.get(offset(first)..offset(last) + last.len()).unwrap_or(first)
}

#[expect(clippy::cast_precision_loss, reason = "counts of words, sentences and turns are far below 2^53")]
fn ratio(one: usize, other: usize) -> f64 {
    one as f64 / other as f64
}
