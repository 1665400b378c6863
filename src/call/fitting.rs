//! Selects the insights that fit into one frame, and reports which analyses are incomplete.
//!
//! Knows no call and no frame format.

use serde_json::{Map, Value, json};

use crate::base::measure;

/// The selected insights.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fitting {
    /// By analysis. Per-turn insights as `{"turns":{"57":{…}}}`.
    pub insights: Map<String, Value>,
    /// Analyses with at least one insight that did not fit.
    pub omitted: Vec<String>,
}

/// Selects insights up to `max_bytes` of JSON: rolling ones first, in the given order, then per-turn ones from the newest
/// turn backwards.
pub fn within(insights: impl IntoIterator<Item = (String, Value)>, max_bytes: usize) -> Fitting {
    /// JSON punctuation per entry, bytes.
    const MARKS: usize = 16;
    let mut fitting = Fitting::default();
    let mut by_turn: Vec<(u64, String, Value)> = Vec::new();
    let mut room = max_bytes;
    for (name, mut value) in insights {
        if let Some(turns) = value.get_mut("turns").and_then(Value::as_object_mut) {
            for (turn, insight) in std::mem::take(turns) {
                by_turn.push((turn.parse().unwrap_or(0), name.clone(), insight));
            }
        } else if let Some(left) = room.checked_sub(measure::value(&value) + name.len() + MARKS) {
            room = left;
            fitting.insights.insert(name, value);
        } else {
            fitting.omitted.push(name);
        }
    }
    by_turn.sort_by_key(|(turn, ..)| *turn);
    // Stop at the first that does not fit, so that the turns shown are contiguous.
    let first = by_turn.iter().rposition(|(_, name, insight)| {
        match room.checked_sub(measure::value(insight) + name.len() + MARKS + 20) {
            Some(left) => room = left,
            None => return true,
        }
        false
    });
    let shown = by_turn.split_off(first.map_or(0, |last| last + 1));
    for (_, name, _) in by_turn {
        if !fitting.omitted.contains(&name) {
            fitting.omitted.push(name);
        }
    }
    for (turn, name, insight) in shown {
        let of_name = fitting.insights.entry(name).or_insert_with(|| json!({ "turns": {} }));
        of_name["turns"][turn.to_string()] = insight;
    }
    fitting
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: usize) -> Value {
        json!({ "value": "x".repeat(bytes) })
    }

    #[test]
    fn insights_over_the_budget_drop_the_oldest_turns_and_are_named() {
        let turns: Map<String, Value> = (0..20).map(|turn| (turn.to_string(), whole(100))).collect();
        let all = || {
            [("mood", json!({ "turns": turns })), ("report", whole(5_000)), ("summary", whole(500))]
                .map(|(name, value)| (name.to_owned(), value))
        };
        let shown = |fitting: &Fitting| -> Vec<u64> {
            let turns = fitting.insights["mood"]["turns"].as_object().expect("turns");
            turns.keys().map(|turn| turn.parse().expect("a number")).collect()
        };
        let fitting = within(all(), 100_000);
        assert_eq!((fitting.omitted.len(), shown(&fitting)), (0, (0..20).collect()));
        assert!(fitting.insights.contains_key("report"));
        for max_bytes in [1_500, 2_000, 3_000] {
            let fitting = within(all(), max_bytes);
            assert_eq!(fitting.omitted, ["report", "mood"]);
            let shown = shown(&fitting);
            assert!(shown.len() >= 4 && shown == (20 - shown.len() as u64..20).collect::<Vec<_>>(), "{shown:?}");
            assert!(measure::value(&fitting.insights) <= max_bytes);
            assert_eq!(fitting.insights["summary"], whole(500));
        }
        assert_eq!(within(all(), 10).insights.len(), 0);
        assert_eq!(within(all(), 10).omitted, ["report", "summary", "mood"]);
    }
}
