//! Evidence: the quotes in an answer are checked against the turns in the prompt, and marked if their words are not
//! there.
//!
//! The words of a turn are split once for all quotes of an answer.
//!
//! Knows no schema: any object with `turn` and `quote` in an answer is a quote. [`crate::base::text`] compares the
//! words.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::base::budget::{Bound, Budget, Exceeded, Limits};
use crate::base::text::{Quote, Words};
use crate::context::{DOUBT, Snapshot};
use crate::types::{Evidence, Turn, TurnNo};

/// Minimum number of words with which a quote that cites a wrong turn can be found in another one.
const FINDABLE_WORDS: usize = 3;
/// Maximum number of quotes of one answer that are searched in turns other than the cited one. Each costs one pass over
/// the transcript; for further quotes, only the cited turn is checked.
const MAX_SEARCHED: usize = 100;
/// Maximum number of quotes in one answer.
const INSIGHT_QUOTES: Bound = Bound::new("insight_quotes", 200);
/// Bytes of text split into words, and bytes searched, in one step.
const BYTES_SPLIT_A_STEP: u64 = 8;
const BYTES_SEARCHED_A_STEP: u64 = 512;
/// Member that marks a quote whose words are not in its turn.
const MARK: &str = "unverified";

/// Limits of checking the quotes of one answer.
pub const READING: Limits = Limits {
    steps: Bound::new("evidence_steps", 20_000_000),
    bytes: Bound::new("evidence_memory_bytes", 256 * 1024 * 1024),
    time: Bound::new("evidence_ms", 10_000),
};

/// Upper estimate of the steps of [`lift`]: every quote may have to be searched for in the whole transcript.
pub(super) fn work(value: &Value, snapshot: &Snapshot) -> u64 {
    let quotes = quotes(value);
    if quotes == 0 {
        return 0;
    }
    // A token is estimated at four bytes.
    let bytes = snapshot.held_tokens().saturating_mul(4);
    let pass = snapshot.len() as u64 + bytes / BYTES_SEARCHED_A_STEP;
    (bytes / BYTES_SPLIT_A_STEP).saturating_add(pass.saturating_mul(quotes.min(MAX_SEARCHED as u64)))
}

/// Number of quotes at any depth.
fn quotes(value: &Value) -> u64 {
    match value {
        Value::Array(items) => items.iter().map(quotes).sum(),
        Value::Object(object) => u64::from(Claim::of(object).is_some()) + object.values().map(quotes).sum::<u64>(),
        _ => 0,
    }
}

/// Returns true if `value` contains a quote from the turn, at any depth.
pub fn quotes_turn(value: &Value, turn: TurnNo) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| quotes_turn(item, turn)),
        Value::Object(object) => {
            Claim::of(object).is_some_and(|claim| claim.turn == turn)
                || object.values().any(|inner| quotes_turn(inner, turn))
        }
        _ => false,
    }
}

/// Checks every quote in `value`. If the top-level member `evidence` is a list of only `{turn, quote}`, it is removed
/// from the value and returned; all other quotes are marked in place (`"unverified": true`), and a wrong turn number is
/// corrected if possible.
///
/// # Errors
/// There are more than 200 quotes, or the budget is used up.
pub(super) fn lift(value: &mut Value, snapshot: &Snapshot, budget: &mut Budget) -> Result<Vec<Evidence>, Exceeded> {
    INSIGHT_QUOTES.check(quotes(value))?;
    let mut checker = Checker { snapshot, budget, folded: HashMap::new(), searched: 0 };
    let lifted = take_out(value, &mut checker)?;
    checker.mark(value)?;
    Ok(lifted.unwrap_or_default())
}

/// Checks the quotes of an earlier answer again, because turns may have been corrected since: each in the turn that it
/// names. A quote from a turn that the snapshot does not hold keeps its mark.
///
/// # Errors
/// The budget is used up.
pub(super) fn recheck(
    value: &mut Value,
    evidence: &mut [Evidence],
    snapshot: &Snapshot,
    budget: &mut Budget,
) -> Result<(), Exceeded> {
    let mut checker = Checker { snapshot, budget, folded: HashMap::new(), searched: 0 };
    for known in evidence {
        if let Some(is_gone) = checker.is_gone(known.turn, &known.quote)? {
            known.unverified = is_gone;
        }
    }
    checker.mark_again(value)
}

/// Removes the top-level `evidence`; `None` if it is not a list of `{turn, quote}`. Items with further members are
/// published as quotes too, but stay in the value.
fn take_out(value: &mut Value, checker: &mut Checker<'_>) -> Result<Option<Vec<Evidence>>, Exceeded> {
    let Some(object) = value.as_object_mut() else { return Ok(None) };
    let Some(items) = object.get("evidence").and_then(Value::as_array) else { return Ok(None) };
    let claims: Option<Vec<Claim>> = items.iter().map(|item| Claim::of(item.as_object()?)).collect();
    let Some(claims) = claims else { return Ok(None) };
    let more = |item: &Value| {
        item.as_object().is_some_and(|fields| fields.keys().any(|key| !["turn", "quote", MARK].contains(&key.as_str())))
    };
    if !items.iter().any(more) {
        object.shift_remove("evidence");
    }
    claims.into_iter().map(|claim| checker.check(claim)).collect::<Result<_, _>>().map(Some)
}

/// A quote as the answer gives it: these words, in this turn.
struct Claim {
    /// `TurnNo::MAX` if the answer names a turn that cannot exist.
    turn: TurnNo,
    quote: String,
}

impl Claim {
    /// Reads a quote; `None` if the object is not one. With an impossible turn (such as -1) it is still a quote, which
    /// is marked and not dropped. An empty quote of no turn is ignored.
    fn of(object: &Map<String, Value>) -> Option<Self> {
        let quote = object.get("quote")?.as_str()?;
        let turn = match object.get("turn")? {
            Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
            Value::Null if quote.is_empty() => return None,
            Value::Null => None,
            _ => return None,
        };
        // A quote is what was said, without the marks of the prompt.
        Some(Self { turn: turn.unwrap_or(TurnNo::MAX), quote: quote.replace(DOUBT, "") })
    }
}

/// A whole number, even if written with a decimal point.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
fn whole(number: f64) -> Option<u64> {
    (number >= 0.0 && number.fract() == 0.0 && number < u32::MAX as f64).then_some(number as u64)
}

/// Checks quotes. The words of each turn are normalised only once.
struct Checker<'a> {
    snapshot: &'a Snapshot,
    budget: &'a mut Budget,
    folded: HashMap<TurnNo, Words>,
    searched: usize,
}

impl Checker<'_> {
    /// The quote, with the turn that contains it: the cited one, or the only one that does.
    fn check(&mut self, claim: Claim) -> Result<Evidence, Exceeded> {
        let Claim { turn, quote } = claim;
        self.budget.spend(quote.len() as u64 / BYTES_SPLIT_A_STEP)?;
        let wanted = Quote::of(&quote);
        let found = if wanted.is_empty() { None } else { self.find(turn, &wanted)? };
        Ok(Evidence { turn: found.unwrap_or(turn), unverified: found.is_none(), quote })
    }

    fn find(&mut self, cited: TurnNo, wanted: &Quote) -> Result<Option<TurnNo>, Exceeded> {
        let snapshot = self.snapshot;
        if let Some(turn) = snapshot.held(cited)
            && self.holds(turn, wanted)?
        {
            return Ok(Some(cited));
        }
        if wanted.weight() < FINDABLE_WORDS || self.searched == MAX_SEARCHED {
            return Ok(None);
        }
        self.searched += 1;
        let mut only = None;
        for turn in snapshot.all_held() {
            if self.holds(turn, wanted)? {
                if only.is_some() {
                    return Ok(None);
                }
                only = Some(turn.turn);
            }
        }
        Ok(only)
    }

    /// Whether the words of a quote are no longer in their turn; `None` if that cannot be known, because the turn is not in
    /// the prompt.
    fn is_gone(&mut self, cited: TurnNo, quote: &str) -> Result<Option<bool>, Exceeded> {
        let (snapshot, covers) = (self.snapshot, self.snapshot.covers());
        self.budget.spend(1 + quote.len() as u64 / BYTES_SPLIT_A_STEP)?;
        match snapshot.held(cited) {
            Some(turn) => {
                let wanted = Quote::of(quote);
                Ok(Some(wanted.is_empty() || !self.holds(turn, &wanted)?))
            }
            // The turn has lost its text.
            None if covers.verbatim_from.is_some_and(|from| from <= cited) && covers.to >= Some(cited) => {
                Ok(Some(true))
            }
            None => Ok(None),
        }
    }

    fn holds(&mut self, turn: &Arc<Turn>, wanted: &Quote) -> Result<bool, Exceeded> {
        let bytes = turn.text.len() as u64;
        self.budget.spend(1 + bytes / BYTES_SEARCHED_A_STEP)?;
        let words = match self.folded.entry(turn.turn) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                self.budget.spend(bytes / BYTES_SPLIT_A_STEP)?;
                self.budget.hold(bytes.saturating_mul(2))?;
                new.insert(Words::of(&turn.text))
            }
        };
        Ok(words.hold(wanted))
    }

    /// Marks the quotes in `value` again, at any depth, without any other change of them.
    fn mark_again(&mut self, value: &mut Value) -> Result<(), Exceeded> {
        match value {
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.mark_again(item)),
            Value::Object(object) => {
                if let Some(claim) = Claim::of(object)
                    && let Some(is_gone) = self.is_gone(claim.turn, &claim.quote)?
                    && (is_gone || object.contains_key(MARK))
                {
                    object.insert(MARK.to_owned(), is_gone.into());
                }
                object.values_mut().try_for_each(|inner| self.mark_again(inner))
            }
            _ => Ok(()),
        }
    }

    /// Marks the quotes in `value` at any depth.
    fn mark(&mut self, value: &mut Value) -> Result<(), Exceeded> {
        match value {
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.mark(item)),
            Value::Object(object) => {
                if let Some(claim) = Claim::of(object) {
                    let cited = claim.turn;
                    let checked = self.check(claim)?;
                    if checked.turn != cited {
                        object.insert("turn".to_owned(), checked.turn.into());
                    }
                    object.insert("quote".to_owned(), checked.quote.into());
                    // A mark that the model itself wrote is not trusted.
                    if checked.unverified || object.contains_key(MARK) {
                        object.insert(MARK.to_owned(), checked.unverified.into());
                    }
                }
                object.values_mut().try_for_each(|inner| self.mark(inner))
            }
            _ => Ok(()),
        }
    }
}
