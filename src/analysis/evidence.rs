//! Evidence: lifting an answer's quotes out of it, and checking them against the turns that the prompt held.
//!
//! Knows no schema. A quote is in a turn if its words are, in their order and side by side; letter case and
//! punctuation do not count, and `…` stands for words left out.

use serde_json::Value;

use crate::context::Snapshot;
use crate::types::{Evidence, TurnNo};

/// Fewest words by which a quote that cites a wrong turn can be found in another.
const FINDABLE_WORDS: usize = 3;

/// Takes the top-level `evidence` out of `value`, if it is a list of `{turn, quote}`; else leaves it there.
pub(super) fn lift(value: &mut Value, snapshot: &Snapshot) -> Vec<Evidence> {
    let Some(object) = value.as_object_mut() else { return Vec::new() };
    let Some(items) = object.get("evidence").and_then(Value::as_array) else { return Vec::new() };
    let read = |item: &Value| -> Option<(TurnNo, String)> {
        // A turn that cannot be (-1, say) is still a claim: it is marked, not dropped.
        let turn = item.get("turn")?;
        let turn = turn.as_u64().or_else(|| turn.as_i64().map(|_| TurnNo::MAX))?;
        Some((turn, item.get("quote")?.as_str()?.to_owned()))
    };
    let Some(quotes) = items.iter().map(read).collect::<Option<Vec<_>>>() else { return Vec::new() };
    object.shift_remove("evidence");
    quotes.into_iter().map(|(turn, quote)| check(turn, quote, snapshot)).collect()
}

/// The quote, with the turn that it is from: the one cited, or the only one that has it.
fn check(turn: TurnNo, quote: String, snapshot: &Snapshot) -> Evidence {
    let pieces = pieces(&quote);
    if pieces.is_empty() {
        return Evidence { turn, quote, unverified: true };
    }
    let holds = |text: &str| holds(&words(text), &pieces);
    if snapshot.turn(turn).is_some_and(|turn| holds(&turn.text)) {
        return Evidence { turn, quote, unverified: false };
    }
    if pieces.iter().map(Vec::len).sum::<usize>() >= FINDABLE_WORDS {
        let mut others = snapshot.turns().filter(|turn| holds(&turn.text));
        if let (Some(only), None) = (others.next(), others.next()) {
            return Evidence { turn: only.turn, quote, unverified: false };
        }
    }
    Evidence { turn, quote, unverified: true }
}

/// The words of `text`, lower case, without what is no letter or digit.
fn words(text: &str) -> Vec<String> {
    text.split(|character: char| character.is_whitespace() || matches!(character, '-' | '–' | '—' | '/'))
        .map(|word| word.chars().filter(|character| character.is_alphanumeric()).flat_map(char::to_lowercase).collect())
        .filter(|word: &String| !word.is_empty())
        .collect()
}

/// The parts of a quote between its ellipses, as words.
fn pieces(quote: &str) -> Vec<Vec<String>> {
    let parts = quote.replace("...", "…");
    parts.split('…').map(words).filter(|piece| !piece.is_empty()).collect()
}

/// Whether `text` holds the pieces, each whole, one after the other.
fn holds(text: &[String], pieces: &[Vec<String>]) -> bool {
    let mut from = 0;
    pieces.iter().all(|piece| {
        let found = text[from..].windows(piece.len()).position(|window| window == piece.as_slice());
        found.is_some_and(|at| {
            from += at + piece.len();
            true
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_words_in_order_whatever_their_dress() {
        let text = words("Well, I'd like to REPLACE my card - today.");
        for good in ["replace my card", "I'd like … my card", "card today", "well I’d like"] {
            assert!(holds(&text, &pieces(good)), "{good}");
        }
        for bad in ["replace card", "my card … like", "place my", "replaces"] {
            assert!(!holds(&text, &pieces(bad)), "{bad}");
        }
        assert!(pieces(" … ?").is_empty());
    }
}
