//! Evidence: the quotes in an answer, checked against the turns that the prompt held, and marked where they are not there.
//!
//! Knows no schema: wherever an answer has an object with `turn` and `quote`, that is a quote. The comparison of words is
//! [`crate::base::text`]'s.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::base::text::{Quote, Words};
use crate::context::Snapshot;
use crate::types::{Evidence, Turn, TurnNo};

/// Fewest words by which a quote that cites a wrong turn can be found in another.
const FINDABLE_WORDS: usize = 3;
/// Quotes of one answer that are looked for in turns other than the one that they cite. Each costs one pass over the
/// transcript; beyond these, only the cited turn is looked at.
const MAX_SEARCHED: usize = 100;
/// Marks a quote that is not in its turn.
const MARK: &str = "unverified";

/// Checks every quote in `value`. Those of a top-level list `evidence` of nothing but `{turn, quote}` are taken out of it;
/// all others are marked where they stand (`"unverified": true`), with their turn's number set right where it can be.
pub(super) fn lift(value: &mut Value, snapshot: &Snapshot) -> Vec<Evidence> {
    let mut checker = Checker { snapshot, folded: HashMap::new(), searched: 0 };
    let lifted = take_out(value, &mut checker);
    checker.mark(value);
    lifted.unwrap_or_default()
}

/// Takes the top-level `evidence` out; `None` where it is no list of `{turn, quote}`. Items that say more than that are
/// published as quotes too, but stay where they are.
fn take_out(value: &mut Value, checker: &mut Checker<'_>) -> Option<Vec<Evidence>> {
    let object = value.as_object_mut()?;
    let items = object.get("evidence")?.as_array()?;
    let claims = items.iter().map(|item| Claim::of(item.as_object()?)).collect::<Option<Vec<_>>>()?;
    let more = |item: &Value| {
        item.as_object().is_some_and(|fields| fields.keys().any(|key| !["turn", "quote", MARK].contains(&key.as_str())))
    };
    if !items.iter().any(more) {
        object.shift_remove("evidence");
    }
    Some(claims.into_iter().map(|claim| checker.check(claim)).collect())
}

/// What an answer says: these words, in this turn.
struct Claim {
    /// `TurnNo::MAX` where the answer names no turn that there can be.
    turn: TurnNo,
    quote: String,
}

impl Claim {
    /// Reads a claim; `None` where the object is none. A turn that cannot be (-1, say) is still a claim: it is marked, not
    /// dropped. Nothing quoted from no turn claims nothing.
    fn of(object: &Map<String, Value>) -> Option<Self> {
        let quote = object.get("quote")?.as_str()?;
        let turn = match object.get("turn")? {
            Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
            Value::Null if quote.is_empty() => return None,
            Value::Null => None,
            _ => return None,
        };
        Some(Self { turn: turn.unwrap_or(TurnNo::MAX), quote: quote.to_owned() })
    }
}

/// A whole number that was written with a decimal point.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
fn whole(number: f64) -> Option<u64> {
    (number >= 0.0 && number.fract() == 0.0 && number < u32::MAX as f64).then_some(number as u64)
}

/// Checks quotes; each turn is folded once.
struct Checker<'a> {
    snapshot: &'a Snapshot,
    folded: HashMap<TurnNo, Words>,
    searched: usize,
}

impl Checker<'_> {
    /// The quote, with the turn that it is from: the one cited, or the only one that has it.
    fn check(&mut self, claim: Claim) -> Evidence {
        let Claim { turn, quote } = claim;
        let wanted = Quote::of(&quote);
        let found = if wanted.is_empty() { None } else { self.find(turn, &wanted) };
        Evidence { turn: found.unwrap_or(turn), unverified: found.is_none(), quote }
    }

    fn find(&mut self, cited: TurnNo, wanted: &Quote) -> Option<TurnNo> {
        let snapshot = self.snapshot;
        if let Some(turn) = snapshot.held(cited)
            && self.holds(turn, wanted)
        {
            return Some(cited);
        }
        if wanted.weight() < FINDABLE_WORDS || self.searched == MAX_SEARCHED {
            return None;
        }
        self.searched += 1;
        let mut only = None;
        for turn in snapshot.all_held() {
            if self.holds(turn, wanted) {
                if only.is_some() {
                    return None;
                }
                only = Some(turn.turn);
            }
        }
        only
    }

    fn holds(&mut self, turn: &Arc<Turn>, wanted: &Quote) -> bool {
        self.folded.entry(turn.turn).or_insert_with(|| Words::of(&turn.text)).hold(wanted)
    }

    /// Marks the quotes in `value`, however deep they stand.
    fn mark(&mut self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.mark(item)),
            Value::Object(object) => {
                if let Some(claim) = Claim::of(object) {
                    let cited = claim.turn;
                    let checked = self.check(claim);
                    if checked.turn != cited {
                        object.insert("turn".to_owned(), checked.turn.into());
                    }
                    // A mark of the model's own says nothing.
                    if checked.unverified || object.contains_key(MARK) {
                        object.insert(MARK.to_owned(), checked.unverified.into());
                    }
                }
                object.values_mut().for_each(|inner| self.mark(inner));
            }
            _ => {}
        }
    }
}
