//! Determines who serves a customer in a conversation, and which words belong to serving: greetings, thanks, apologies,
//! offers of help.
//!
//! Knows no company and no subject, only what is said to every customer in the same words. English.

use std::collections::BTreeMap;

use super::words;
use crate::types::Turn;

/// Phrases that only a speaker who serves customers says.
static SERVING: &[&str] = &[
    "how can i help",
    "how may i help",
    "how can i assist",
    "how may i assist",
    "what can i do for you",
    "anything else i can",
    "anything else that i can",
    "is there anything else",
    "thank you for calling",
    "thanks for calling",
    "may i have your",
    "can i have your",
    "could i have your",
    "can i get your",
    "i apologize",
    "i do apologize",
    "my apologies",
    "we apologize",
    "sorry to hear",
    "sorry for the inconvenience",
    "thank you for your patience",
    "thanks for your patience",
    "thank you for holding",
    "let me look into",
    "let me check that for you",
    "i understand your",
    "happy to help",
    "glad to help",
];

/// Parts of a speaker label that name a role which serves customers.
static ROLES: &[&str] = &[
    "agent",
    "assistant",
    "rep",
    "representative",
    "advisor",
    "adviser",
    "operator",
    "support",
    "service",
    "staff",
    "bot",
    "clerk",
];

/// Polite phrases that say nothing about the subject of a conversation.
static COURTESY: &[&str] = &[
    "thank you",
    "thanks",
    "you're welcome",
    "my pleasure",
    "good morning",
    "good afternoon",
    "good evening",
    "good bye",
    "goodbye",
    "bye",
    "have a great",
    "have a good",
    "have a nice",
    "nice to meet",
    "how are you",
    "how can i help",
    "how may i help",
    "what can i do for you",
    "anything else",
    "that is kind",
    "that's kind",
    "sorry to hear",
    "take care",
    "see you",
    "you too",
    "don't mention it",
    "no problem",
    "hello",
    "hi",
];

/// Words of sympathy and politeness. Said by a speaker who serves customers, they say nothing about that speaker's own
/// mood.
static SYMPATHY: &str = "sorry apologize apologise apologies apology regret unfortunately afraid frustrating frustrated \
    frustration annoying upset upsetting inconvenience inconvenient trouble problem problems issue issues fault error mistake \
    wrong bad worse terrible horrible awful unacceptable stressful difficult hard worry worried understand understandable \
    disappointing disappointed no not never can't cannot won't don't didn't doesn't isn't wasn't haven't hasn't couldn't \
    lost broken failed failure late delay delayed cancel cancelled expired declined denied missed wait stop complaint \
    glad happy great good nice perfect wonderful excellent lovely awesome fantastic pleasure welcome thank thanks appreciate \
    care help sure please best love kind enjoy";

/// The labels of the speakers who serve: recognised by the label itself, or by phrases that only those who serve say.
/// If that is true of all speakers, none is returned.
pub(super) fn servers<'a>(turns: &[&'a Turn]) -> Vec<&'a str> {
    let mut said: BTreeMap<&str, usize> = BTreeMap::new();
    for turn in turns {
        let Some(speaker) = turn.speaker.as_deref().filter(|speaker| !speaker.is_empty()) else { continue };
        *said.entry(speaker).or_default() +=
            usize::from(is_serving(&turn.text)) + if names_role(speaker) { 100 } else { 0 };
    }
    let most = said.values().copied().max().unwrap_or_default();
    // A speaker who says such a phrase only once may be repeating the other's words.
    let serves = |count: usize| count * 2 > most;
    if said.len() > 1 && said.values().all(|count| serves(*count)) {
        return Vec::new();
    }
    said.into_iter().filter(|(_, count)| serves(*count)).map(|(speaker, _)| speaker).collect()
}

/// Returns true if a text contains a phrase that only an agent says, never a customer.
fn is_serving(text: &str) -> bool {
    let said = spoken(text);
    SERVING.iter().any(|phrase| holds(&said, phrase))
}

/// Returns true if a label names a role that serves.
fn names_role(label: &str) -> bool {
    words::plain(label).any(|word| ROLES.contains(&word.trim_end_matches(|character: char| character.is_numeric())))
}

/// Share of a sentence that is not a polite phrase, from 0 to 1.
pub(super) fn substance(sentence: &str) -> f64 {
    let said = spoken(sentence);
    let polite = COURTESY
        .iter()
        .filter(|phrase| holds(&said, phrase))
        .map(|phrase| words::content(phrase).len() + 2)
        .sum::<usize>();
    if polite == 0 {
        return 1.0;
    }
    let content = words::content(sentence).len();
    #[expect(clippy::cast_precision_loss, reason = "a sentence has few words")]
    let share = content.saturating_sub(polite) as f64 / content.max(1) as f64;
    share
}

/// Returns true if a lower-case word is mere politeness or sympathy when said by the speaker who serves.
pub(super) fn is_sympathy(word: &str) -> bool {
    use std::collections::HashSet;
    use std::sync::LazyLock;

    static SET: LazyLock<HashSet<&'static str>> = LazyLock::new(|| SYMPATHY.split_whitespace().collect());
    SET.contains(word)
}

/// The words, with one space between them and around them.
pub(super) fn spoken(text: &str) -> String {
    let mut said = String::from(" ");
    for word in words::plain(text) {
        said.push_str(&word);
        said.push(' ');
    }
    said
}

/// Returns true if `said` contains the phrase as whole words.
pub(super) fn holds(said: &str, phrase: &str) -> bool {
    said.match_indices(phrase).any(|(at, _)| said[..at].ends_with(' ') && said[at + phrase.len()..].starts_with(' '))
}
