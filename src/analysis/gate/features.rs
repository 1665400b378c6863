//! The features of a turn from which the gate decides. `tests/eval/train/gate.py` computes the same features for
//! training.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::lists::{ACTING, ASSENT, CLOSING, COURTESY, DENIAL};
use crate::llm::local::words;

/// Number of features.
pub(super) const COUNT: usize = 12;

type Set = HashSet<&'static str>;

static ASSENT_SET: LazyLock<Set> = LazyLock::new(|| ASSENT.split_whitespace().collect());
static DENIAL_SET: LazyLock<Set> = LazyLock::new(|| DENIAL.split_whitespace().collect());
static ACTING_SET: LazyLock<Set> = LazyLock::new(|| ACTING.split_whitespace().collect());
static COURTESY_WORDS: LazyLock<Vec<Vec<&'static str>>> =
    LazyLock::new(|| COURTESY.iter().map(|phrase| phrase.split(' ').collect()).collect());

/// The features of a turn. `before`: the texts of the turns before it, the newest first, at least one. `None`: the
/// features for those earlier turns with which it is most likely that the turn adds nothing: they contain all of its
/// content, and they ask nothing.
pub(super) fn of(text: &str, before: Option<&[&str]>) -> [f32; COUNT] {
    let spoken: Vec<String> = words::plain(text).collect();
    let polite = courteous(&spoken);
    let is_assent = |word: &str| ASSENT_SET.contains(word);
    let marked = || spoken.iter().map(String::as_str).zip(polite.iter().copied());
    let own: Vec<&str> = marked().filter(|(word, polite)| !polite && !is_assent(word)).map(|(word, _)| word).collect();
    let assents = marked().filter(|(word, polite)| !polite && is_assent(word)).count();
    let stems: Vec<&str> = own.iter().filter_map(|word| words::content_stem(word)).collect();
    let digits: Vec<&str> = own.iter().copied().filter(|word| words::is_number(word)).collect();
    // Most short turns have neither content words nor numbers, so nothing in them can be a repetition.
    let (mut said, mut repeated) = (stems.len(), digits.len());
    if let Some(before) = before.filter(|_| !stems.is_empty() || !digits.is_empty()) {
        let known: HashSet<String> = before.iter().flat_map(|earlier| words::content(earlier)).collect();
        let numbers: HashSet<String> =
            before.iter().flat_map(|earlier| words::plain(earlier)).filter(|word| words::is_number(word)).collect();
        said = stems.iter().filter(|stem| known.contains(**stem)).count();
        repeated = digits.iter().filter(|word| numbers.contains(**word)).count();
    }
    let any = |set: &Set| own.iter().any(|word| set.contains(word));
    let flag = |is: bool| f32::from(u8::from(is));
    let capped = |count: usize, most: usize| short(count.min(most));
    let total = short(spoken.len().max(1));
    [
        capped(spoken.len(), 12) / 12.0,
        capped(stems.len() - said, 4),
        capped(said, 4),
        capped(digits.len() - repeated, 2),
        capped(repeated, 2),
        flag(!own.is_empty() && words::is_question(text.trim())),
        flag(before.and_then(|before| before.first()).is_some_and(|last| asks(last))),
        short(polite.iter().filter(|polite| **polite).count()) / total,
        short(assents) / total,
        flag(any(&DENIAL_SET)),
        flag(any(&ACTING_SET)),
        flag(!own.is_empty() && stems.is_empty() && digits.is_empty()),
    ]
}

/// For each word: true if it belongs to a courtesy.
fn courteous(spoken: &[String]) -> Vec<bool> {
    let mut marked = vec![false; spoken.len()];
    for phrase in COURTESY_WORDS.iter() {
        for at in 0..(spoken.len() + 1).saturating_sub(phrase.len()) {
            if spoken[at..at + phrase.len()].iter().eq(phrase.iter()) {
                marked[at..at + phrase.len()].fill(true);
            }
        }
    }
    marked
}

/// Returns true if a turn asks about the subject of the call. The next turn then answers it, however short it is.
fn asks(text: &str) -> bool {
    let said = || format!(" {} ", words::plain(text).collect::<Vec<_>>().join(" "));
    words::is_question(text.trim()) && {
        let said = said();
        !CLOSING.iter().any(|phrase| said.contains(&format!(" {phrase} ")))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a short turn has few words")]
fn short(count: usize) -> f32 {
    count as f32
}
