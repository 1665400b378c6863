//! The sentiment of one turn, by lexicon, rules and a linear model.
//!
//! Knows no transcript. Four signals are added: the VADER lexicon over the words that are not mere politeness, a
//! lexicon of conversation with negation (see [`super::lexicon`]), a trained model of n-grams (see [`super::ngrams`]),
//! and the kind of sentence. An exclamation always has a feeling, so only its sign is determined; a question usually has
//! none; anything else is neutral unless its words are strong. The constants were chosen by hand and checked on about
//! 400 turns with human labels; halving or doubling one of them costs at most four points of accuracy there.
//! `scripts/eval-local` prints the figures.

use std::sync::LazyLock;

use vader_sentimental::SentimentIntensityAnalyzer;

use super::lexicon::{self, PHRASES};
use super::{ngrams, service, words};

static VADER: LazyLock<SentimentIntensityAnalyzer<'static>> = LazyLock::new(SentimentIntensityAnalyzer::new);

/// Weight of VADER's compound score.
const VADER_WEIGHT: f64 = 0.8;
/// Weight of the n-gram model, and the bound of its value, either way.
const NGRAM_WEIGHT: f64 = 0.1;
const NGRAM_CAP: f64 = 3.5;
/// Maximum score of the conversation lexicon, in either direction.
const LEXICON_CAP: f64 = 1.6;
/// Factor of a positive word after a negation.
const NEGATED: f64 = -0.6;
/// Number of words before a word in which a negation applies to it.
const NEGATION_REACH: usize = 3;
/// Score of an exclamation that begins with a greeting or assent.
const GREETING: f64 = 0.5;
/// Score of an exclamation that begins with a question word.
const QUESTION: f64 = -0.4;
/// Score of an exclamation that addresses somebody.
const AT_YOU: f64 = -0.15;
/// Score of an exclamation without other signs.
const EXCLAIMED: f64 = -0.12;
/// Score from which a statement is positive.
const STATEMENT_POSITIVE: f64 = 0.75;
/// Score from which a statement is negative. It is lower, because complaints are worded more mildly than praise.
const STATEMENT_NEGATIVE: f64 = 0.45;
/// Score from which a question is positive.
const QUESTION_POSITIVE: f64 = 1.2;
/// Score from which a question is negative.
const QUESTION_NEGATIVE: f64 = 0.9;
/// Scores closer to 0 are neutral.
const NEUTRAL: f64 = 0.25;
/// Mean scores of several turns that are closer to 0 are neutral.
const NEUTRAL_TOGETHER: f64 = 0.1;

/// The sentiment of a turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mood {
    /// From -1 to 1.
    pub score: f64,
    /// Weight in a mean: longer turns weigh more, up to a limit.
    weight: f64,
}

impl Mood {
    /// `positive`, `neutral` or `negative`.
    pub fn label(&self) -> &'static str {
        label(self.score, NEUTRAL)
    }
}

/// The sentiment of a text.
pub fn mood(text: &str) -> Mood {
    let spoken: Vec<String> = words::plain(text).collect();
    judged(text, &spoken)
}

/// The sentiment of a speaker who serves customers. Politeness and sympathy are left out, because they belong to the
/// job. Polite exclamations count as statements.
pub(super) fn mood_of_server(text: &str) -> Mood {
    let own = |word: &str| !service::is_sympathy(&word.to_lowercase().replace('’', "'"));
    let mut kept = String::with_capacity(text.len());
    for token in text.split_whitespace() {
        let bare = token.trim_matches(|character: char| !character.is_alphanumeric());
        if own(bare) {
            kept.extend(token.chars().map(|character| if matches!(character, '!' | '！') { '.' } else { character }));
            kept.push(' ');
        }
    }
    let mood = mood(&kept);
    Mood { weight: weight(words::plain(text).count()), ..mood }
}

fn judged(text: &str, spoken: &[String]) -> Mood {
    let leaning = if spoken.is_empty() { 0.0 } else { ngrams::leaning(text) };
    let mut strength =
        VADER_WEIGHT * vader(text) + conversation(spoken) + NGRAM_WEIGHT * leaning.clamp(-NGRAM_CAP, NGRAM_CAP);
    let exclaims = text.contains(['!', '！']);
    let asks = text.contains(['?', '？']);
    let (positive, negative) = if exclaims {
        strength += manner(spoken);
        (0.0, 0.0)
    } else if asks {
        (QUESTION_POSITIVE, QUESTION_NEGATIVE)
    } else {
        (STATEMENT_POSITIVE, STATEMENT_NEGATIVE)
    };
    // Below its threshold a score stays below `NEUTRAL`; above, it rises towards 1.
    let threshold = if strength < 0.0 { negative } else { positive };
    let size = strength.abs();
    let score = if size < threshold {
        NEUTRAL * 0.96 * size / threshold
    } else {
        NEUTRAL + (1.0 - NEUTRAL) * (1.0 - (-(size - threshold * 0.5) / 1.2).exp())
    };
    let silent = spoken.is_empty() && strength == 0.0;
    Mood { score: if silent { 0.0 } else { score.copysign(strength) }, weight: weight(spoken.len()) }
}

fn weight(words: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "at most 20")]
    let weight = 3.0 + words.min(20) as f64;
    weight
}

/// The mean of several turns. Neutral turns weigh less, because otherwise every call would be neutral.
pub(super) fn together(moods: &mut dyn Iterator<Item = &Mood>) -> f64 {
    let (mut sum, mut weights) = (0.0, 0.0);
    for mood in moods {
        let felt = if mood.label() == "neutral" { 0.3 } else { 1.0 };
        sum += mood.score * mood.weight * felt;
        weights += mood.weight * felt;
    }
    if weights > 0.0 { sum / weights } else { 0.0 }
}

/// The label of a mean of [`together`].
pub(super) fn label_of_many(score: f64) -> &'static str {
    label(score, NEUTRAL_TOGETHER)
}

fn label(score: f64, neutral: f64) -> &'static str {
    if score >= neutral {
        "positive"
    } else if score <= -neutral {
        "negative"
    } else {
        "neutral"
    }
}

/// VADER's compound score, from -1 to 1, without words of politeness and without the punctuation that the rules here
/// use themselves. (The crate counts an exclamation mark without a word of feeling before it as negative.)
fn vader(text: &str) -> f64 {
    let mut kept = String::with_capacity(text.len());
    for token in text.split_whitespace() {
        let bare = token.trim_matches(|character: char| !character.is_alphanumeric());
        let polite = !bare.is_empty() && lexicon::look_up(&bare.to_lowercase()).polite;
        // A placeholder keeps the word's position, because VADER looks at neighbouring words.
        let shown = if polite { token.replace(bare, "x") } else { token.to_owned() };
        kept.extend(shown.chars().map(|character| if matches!(character, '!' | '?') { ' ' } else { character }));
        kept.push(' ');
    }
    if kept.trim().is_empty() { 0.0 } else { VADER.polarity_scores(&kept).compound }
}

/// The score of the words in the conversation lexicon.
fn conversation(spoken: &[String]) -> f64 {
    let mut sum = 0.0;
    let mut negated_until = 0;
    for (index, word) in spoken.iter().enumerate() {
        let entry = lexicon::look_up(word);
        sum += if entry.weight > 0.0 && index < negated_until { entry.weight * NEGATED } else { entry.weight };
        if entry.negates {
            negated_until = index + 1 + NEGATION_REACH;
        }
    }
    let said = spoken.join(" ");
    sum += PHRASES.iter().filter(|(phrase, _)| holds(&said, phrase)).map(|(_, weight)| weight).sum::<f64>();
    sum.clamp(-LEXICON_CAP, LEXICON_CAP)
}

/// The score of an exclamation's form.
fn manner(spoken: &[String]) -> f64 {
    let greets = spoken.iter().take(2).any(|word| lexicon::look_up(word).greets);
    let asks = spoken.first().is_some_and(|word| lexicon::look_up(word).asks);
    let at_you = spoken.iter().any(|word| word.starts_with("you"));
    let parts = [(greets, GREETING), (asks, QUESTION), (at_you, AT_YOU)];
    EXCLAIMED + parts.iter().filter(|(is, _)| *is).map(|(_, weight)| weight).sum::<f64>()
}

/// Returns true if `said` contains the phrase as whole words.
fn holds(said: &str, phrase: &str) -> bool {
    said.match_indices(phrase).any(|(at, _)| {
        let before = said[..at].chars().next_back();
        let after = said[at + phrase.len()..].chars().next();
        before.is_none_or(|character| character == ' ') && after.is_none_or(|character| character == ' ')
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::testing::kept;

    #[test]
    fn sentiment_of_typical_sentences_is_as_expected() {
        for (text, expected) in [
            ("How can I help you today?", "neutral"),
            ("Okay, sure, let me check that for you please.", "neutral"),
            ("I lost my debit card.", "negative"),
            ("This is ridiculous, I have been waiting for two hours.", "negative"),
            ("I'm not happy with this at all.", "negative"),
            ("That's awesome, thank you so much!", "positive"),
            ("I really love the new app, it's wonderful.", "positive"),
            ("What?! No!", "negative"),
            ("Hi!", "positive"),
            ("Thank you!", "positive"),
            ("Thanks, see you tomorrow!", "positive"),
            ("Have a good weekend!", "positive"),
            ("Thank you for calling Northwind.", "neutral"),
            ("Give me my money back!", "negative"),
            ("", "neutral"),
            ("...", "neutral"),
        ] {
            assert_eq!(mood(text).label(), expected, "{text} {:?}", mood(text));
        }
    }

    #[test]
    fn stronger_words_give_stronger_scores() {
        let scores =
            ["It broke.", "It broke, that's bad.", "It's broken, horrible, I hate it."].map(|text| mood(text).score);
        assert!(scores.is_sorted_by(|one, other| one > other), "{scores:?}");
    }

    proptest! {
        #![proptest_config(kept())]

        #[test]
        fn any_text_has_a_score_in_range(text in "\\PC{0,80}|[a-z!?' ]{0,60}") {
            let mood = mood(&text);
            prop_assert!((-1.0..=1.0).contains(&mood.score), "{:?}", mood);
        }
    }
}
