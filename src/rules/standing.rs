//! The state of a call's alerts, folded from its log: which are open, when each rule raised its newest one, and since
//! when the conditions on insights hold.
//!
//! Knows no rule: alerts of rules that are no longer configured stay unchanged.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{Alert, ClearedAlert, OpenAlert, Seq, TurnNo};

/// What an insight's record contains about conditions that must hold for a while, by rule. A private field of the
/// record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Rules whose conditions begin to hold at this insight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub begin: Vec<String>,
    /// Rules whose conditions cease to hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub end: Vec<String>,
}

impl Marks {
    /// Returns true if there is no mark.
    pub fn is_empty(&self) -> bool {
        self.begin.is_empty() && self.end.is_empty()
    }
}

/// The newest alert of a rule, open or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raised {
    /// Number of alerts that the rule has raised, including this one.
    pub times: u64,
    /// Wall-clock time, ms since 1970.
    pub at_ms: i64,
    /// Position of its record.
    pub seq: Seq,
    /// The first turn after those that it is about.
    pub next_turn: TurnNo,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    given: u64,
    open: BTreeMap<String, (Seq, OpenAlert)>,
    raised: BTreeMap<String, Raised>,
    since: BTreeMap<String, i64>,
}

impl Standing {
    /// Applies an `alert.raised`, with its time, its position, and the first turn after those that it is about.
    pub fn raise(&mut self, alert: &Alert, at: &str, at_ms: i64, seq: Seq, next_turn: TurnNo) {
        self.given += 1;
        let times = self.raised.get(&alert.rule).map_or(0, |raised| raised.times) + 1;
        self.raised.insert(alert.rule.clone(), Raised { times, at_ms, seq, next_turn });
        let shown = OpenAlert { alert: alert.clone(), at: at.to_owned() };
        self.open.insert(alert.rule.clone(), (seq, shown));
    }

    /// Applies an `alert.cleared`.
    pub fn clear(&mut self, cleared: &ClearedAlert) {
        if self.open.get(&cleared.rule).is_some_and(|(_, open)| open.alert.id == cleared.id) {
            self.open.remove(&cleared.rule);
        }
    }

    /// Applies the marks in the record of an insight.
    pub fn mark(&mut self, marks: &Marks, at_ms: i64) {
        for rule in &marks.end {
            self.since.remove(rule);
        }
        for rule in &marks.begin {
            self.since.insert(rule.clone(), at_ms);
        }
    }

    /// Number of alerts so far.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// The open alert of a rule.
    pub fn open(&self, rule: &str) -> Option<&Alert> {
        self.open.get(rule).map(|(_, open)| &open.alert)
    }

    /// The newest alert of a rule.
    pub fn raised(&self, rule: &str) -> Option<Raised> {
        self.raised.get(rule).copied()
    }

    /// Since when the condition of a rule holds: wall-clock time, ms since 1970.
    pub fn since(&self, rule: &str) -> Option<i64> {
        self.since.get(rule).copied()
    }

    /// All open alerts, oldest first.
    pub fn shown(&self) -> Vec<OpenAlert> {
        let mut open: Vec<&(Seq, OpenAlert)> = self.open.values().collect();
        open.sort_by_key(|(seq, _)| *seq);
        open.into_iter().map(|(_, shown)| shown.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Severity;

    fn alert(id: &str, rule: &str) -> Alert {
        let (id, rule) = (id.to_owned(), rule.to_owned());
        Alert { id, rule, severity: Severity::Info, message: String::new(), turn: None, quote: None }
    }

    fn cleared(id: &str, rule: &str) -> ClearedAlert {
        ClearedAlert { id: id.to_owned(), rule: rule.to_owned() }
    }

    #[test]
    fn alerts_are_open_from_their_raising_to_their_clearing() {
        let mut standing = Standing::default();
        standing.raise(&alert("a_1", "late"), "t1", 1_000, 4, 2);
        standing.raise(&alert("a_2", "churn"), "t2", 2_000, 6, 3);
        let ids = |standing: &Standing| standing.shown().iter().map(|open| open.alert.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&standing), ["a_1", "a_2"], "oldest first");
        standing.clear(&cleared("a_9", "late"));
        assert!(standing.open("late").is_some(), "the id of another alert");
        standing.clear(&cleared("a_1", "late"));
        assert_eq!(ids(&standing), ["a_2"]);
        standing.raise(&alert("a_3", "late"), "t3", 3_000, 8, 5);
        assert_eq!(standing.raised("late"), Some(Raised { times: 2, at_ms: 3_000, seq: 8, next_turn: 5 }));
        assert_eq!(standing.given(), 3);
    }

    #[test]
    fn condition_holds_since_its_first_mark() {
        let mut standing = Standing::default();
        standing.mark(&Marks { begin: vec!["mood".into()], end: vec![] }, 5);
        assert_eq!(standing.since("mood"), Some(5));
        standing.mark(&Marks { begin: vec![], end: vec!["mood".into()] }, 9);
        assert_eq!(standing.since("mood"), None);
    }
}
