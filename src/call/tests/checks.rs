//! The design's invariants of one call, checked on its durable records and on the tasks that it starts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use super::disk::Stored;
use super::models::Running;
use super::reading::Reading;
use super::script::numbers;
use crate::analysis::{Analysis, Registry};
use crate::call::config::LimitsConfig;
use crate::call::log::Log;
use crate::call::record::{Decoded, Outgoing, StoredDigest};
use crate::call::schedule::TURN_JOBS;
use crate::call::task::TaskKey;
use crate::protocol::Event;
use crate::types::{Alert, CallId, Insight, Status, Trigger, Turn, TurnNo};

/// The state according to the records so far.
pub(super) struct Checks {
    /// Built from all records that were passed to the journal.
    pub(super) handed: Log,
    /// Built from the durable records.
    pub(super) durable: Log,
    reading: Reading,
    flight: Vec<Decoded>,
    /// Turns of a live call and of [`Checks::handed`] that were the same.
    compared: Vec<[Arc<Turn>; 2]>,
    /// How often each final word occurs in durable turns.
    words: HashMap<u32, u32>,
    /// Words that occur there more than once.
    doubled: BTreeSet<u32>,
    /// Words of each durable turn.
    by_turn: BTreeMap<TurnNo, Vec<u32>>,
    /// Results of per-turn analyses.
    results: HashMap<(String, TurnNo), u32>,
    /// When the newest failure of an analysis was published, since the call was loaded.
    failed_at: HashMap<String, i64>,
    /// Analyses that were requested by hand.
    pub(super) by_hand: HashSet<String>,
    pub(super) completed: bool,
    /// For each rule: the id of its open alert; and when it raised its newest one.
    open: BTreeMap<String, String>,
    raised_ms: BTreeMap<String, i64>,
    alerts: u64,
    alerts_per_call: u64,
    alert_pause_ms: i64,
    /// Until this time, a rolling analysis that failed must not run again.
    not_before: HashMap<Arc<str>, u64>,
}

impl Checks {
    pub(super) fn new(call: &CallId, limits: &LimitsConfig) -> Self {
        Self {
            handed: Log::new(call.clone()),
            durable: Log::new(call.clone()),
            reading: Reading::default(),
            flight: Vec::new(),
            compared: Vec::new(),
            words: HashMap::new(),
            doubled: BTreeSet::new(),
            by_turn: BTreeMap::new(),
            results: HashMap::new(),
            failed_at: HashMap::new(),
            by_hand: HashSet::new(),
            completed: false,
            open: BTreeMap::new(),
            raised_ms: BTreeMap::new(),
            alerts: 0,
            alerts_per_call: limits.alerts_per_call,
            alert_pause_ms: i64::try_from(limits.alert_pause.as_millis()).expect("short"),
            not_before: HashMap::new(),
        }
    }

    /// Records were passed to the journal.
    pub(super) fn handed(&mut self, records: &[Outgoing]) {
        assert!(self.flight.is_empty(), "one append in flight");
        for record in records {
            let decoded = self.reading.read(self.handed.head() + 1, &record.frame, &record.private);
            assert_eq!(decoded.event.header(), record.header);
            self.handed.restore(decoded.clone()).expect("a record follows those before it");
            self.flight.push(decoded);
        }
    }

    /// Once all records were passed to the journal, the call's state must equal the state that its records give. Turns
    /// and insights are never changed in place, so those that were compared before are not compared again.
    pub(super) fn knows(&mut self, call: &Log) {
        same_beside_turns_and_insights(call, &self.handed);
        assert_eq!(call.turns.len(), self.handed.turns.len());
        for (place, (turn, handed)) in call.turns.iter().zip(self.handed.turns.iter()).enumerate() {
            let known = self.compared.get(place);
            if known.is_some_and(|known| Arc::ptr_eq(&known[0], turn) && Arc::ptr_eq(&known[1], handed)) {
                continue;
            }
            assert_eq!(turn, handed, "the turns differ");
            let same = [Arc::clone(turn), Arc::clone(handed)];
            match self.compared.get_mut(place) {
                Some(known) => *known = same,
                None => self.compared.push(same),
            }
        }
        for (standing, handed) in call.standings.values().zip(self.handed.standings.values_mut()) {
            assert!(standing.by_turn.keys().eq(handed.by_turn.keys()), "insights on turns differ");
            let by_turn = standing.by_turn.values().zip(handed.by_turn.values_mut());
            for (insight, handed) in by_turn.chain(standing.latest.iter().zip(&mut handed.latest)) {
                if !Arc::ptr_eq(insight, handed) {
                    assert_eq!(insight, handed, "the insights differ");
                    *handed = Arc::clone(insight);
                }
            }
        }
    }

    /// The passed records are durable.
    pub(super) fn committed(&mut self, stored: &[Stored]) {
        let flight = std::mem::take(&mut self.flight);
        assert_eq!(flight.len(), stored.len());
        let ends = flight.iter().any(|decoded| matches!(decoded.event, Event::CallCompleted { .. }));
        for (decoded, stored) in flight.into_iter().zip(stored) {
            assert_eq!(decoded.seq, stored.seq, "seq is dense");
            self.record(&decoded, ends);
            self.durable.restore(decoded).expect("a record follows those before it");
        }
        assert!(self.doubled.is_empty(), "words stand in more than one turn: {:?}", self.doubled);
    }

    fn record(&mut self, decoded: &Decoded, ends: bool) {
        if let Some(made) = &decoded.private.digest {
            self.digest(made);
        }
        match &decoded.event {
            Event::TurnFinal { turn } | Event::TurnRevised { turn, .. } => self.turn(turn),
            Event::InsightUpdated { insight } => self.insight(insight),
            Event::InsightFailed { failure } => {
                if let Some(turn) = failure.turn {
                    self.result(&failure.analysis, turn);
                }
                let now = crate::base::time::parse_rfc3339(&decoded.at).expect("a time");
                let before = self.failed_at.insert(failure.analysis.clone(), now);
                let apart = before.is_none_or(|before| now - before >= 1_000);
                assert!(apart || ends, "failures of {} come {before:?} and {now}", failure.analysis);
                assert!(!self.completed || self.by_hand.contains(&failure.analysis), "a failure after the call's end");
            }
            Event::AlertRaised { alert } => self.raised(alert, &decoded.at),
            Event::AlertCleared { alert } => {
                assert!(!self.completed, "an alert is cleared after the call's end");
                assert_eq!(self.open.remove(&alert.rule).as_ref(), Some(&alert.id), "what is cleared was open");
            }
            Event::CallCompleted { .. } => assert!(!std::mem::replace(&mut self.completed, true), "completed twice"),
            _ => assert!(!self.completed, "{} after the call's end", decoded.event.kind().as_str()),
        }
    }

    /// A digest is never empty, and is of turns that follow those of the digests before it, or of whole digests.
    fn digest(&self, made: &StoredDigest) {
        let (turns, claims) = (made.digest.turns(), made.digest.claims());
        assert!(!claims.is_empty() && claims.iter().flat_map(|claim| &claim.turns).all(|turn| turns.contains(turn)));
        assert!(turns.end <= self.durable.turns.len() as u64, "turns that are not there");
        let known = self.durable.digests.get(&made.mark).cloned().unwrap_or_default();
        let begins = known.iter().any(|known| known.turns().start == turns.start);
        let ends = known.iter().any(|known| known.turns().end == turns.end);
        assert!(turns.start == known.until() || (begins && ends), "{turns:?} after {known:?}");
    }

    /// Each rule has at most one open alert; alerts are numbered, and the turns that they name exist.
    fn raised(&mut self, alert: &Alert, at: &str) {
        assert!(!self.completed, "an alert after the call's end");
        self.alerts += 1;
        assert_eq!(alert.id, format!("a_{}", self.alerts), "ids are dense");
        assert!(self.alerts <= self.alerts_per_call, "more alerts than a call may have");
        let open = self.open.insert(alert.rule.clone(), alert.id.clone());
        assert_eq!(open, None, "two open alerts of {}", alert.rule);
        let now = crate::base::time::parse_rfc3339(at).expect("a time");
        let before = self.raised_ms.insert(alert.rule.clone(), now);
        let paused = before.is_none_or(|before| now - before >= self.alert_pause_ms);
        assert!(paused, "alerts of {} come {before:?} and {now}", alert.rule);
        if let Some(turn) = alert.turn {
            let words = self.by_turn.get(&turn);
            assert!(words.is_some(), "an alert names turn {turn}, which is not there");
            let quoted: Vec<u32> = numbers(alert.quote.as_deref().unwrap_or_default()).collect();
            assert!(quoted.iter().all(|word| words.is_some_and(|words| words.contains(word))), "{alert:?}");
        }
    }

    fn turn(&mut self, turn: &Turn) {
        assert!(!self.completed, "a turn after the call's end");
        let words: Vec<u32> = numbers(&turn.text).collect();
        for word in self.by_turn.insert(turn.turn, words.clone()).into_iter().flatten() {
            let count = self.words.entry(word).or_default();
            *count -= 1;
            if *count == 1 {
                self.doubled.remove(&word);
            }
        }
        for word in words {
            let count = self.words.entry(word).or_default();
            *count += 1;
            if *count == 2 {
                self.doubled.insert(word);
            }
        }
    }

    fn insight(&mut self, insight: &Insight) {
        if let Some(turn) = insight.turn {
            self.result(&insight.analysis, turn);
        } else {
            let known = self.durable.standings.get(&insight.analysis).map_or(0, |standing| standing.rev);
            assert_eq!(insight.rev, known + 1, "revs of {} are dense", insight.analysis);
        }
        assert!(!self.completed || self.by_hand.contains(&insight.analysis), "an insight after the call's end");
        if insight.analysis == "stats" {
            self.figures(insight);
        }
        if insight.provenance.attempts == 0 && insight.provenance.endpoint != "computed" {
            self.same_again(insight);
        }
        let turns = self.durable.turns.len() as u64;
        assert!(insight.covers.to.is_none_or(|to| to < turns), "covers a turn that is not there");
        assert!(insight.covers.turns > 0, "covers nothing");
    }

    /// No model was asked: the insight is the newest result once more, which is based on all turns, as the final one.
    fn same_again(&self, insight: &Insight) {
        let newest = self.durable.standings.get(&insight.analysis).and_then(|standing| standing.latest.as_ref());
        let newest = newest.expect("a result before it");
        assert_eq!((&insight.value, insight.covers), (&newest.value, newest.covers));
        assert_eq!(insight.covers.revision, self.durable.context.revision(), "something came since");
        assert_eq!((insight.status, &insight.trigger), (Status::Final, &Trigger::End));
        assert_eq!((insight.provenance.cost_usd, insight.behind_turns), (Some(0.0), 0));
    }

    /// Computed figures are those of all turns at that time, and no model was asked for them.
    fn figures(&self, insight: &Insight) {
        static STATS: LazyLock<Arc<Analysis>> =
            LazyLock::new(|| Arc::clone(Registry::builtin().get("stats").expect("a built-in analysis")));
        assert_eq!(STATS.compute(self.durable.turns.iter().map(AsRef::as_ref)).as_ref(), Some(&insight.value));
        let spoken = self.durable.turns.iter().filter(|turn| !turn.text.trim().is_empty()).count() as u64;
        assert_eq!((insight.covers.turns, insight.covers.revision), (spoken, self.durable.context.revision()));
        let provenance = &insight.provenance;
        assert_eq!(
            (provenance.endpoint.as_str(), provenance.attempts, provenance.cost_usd),
            ("computed", 0, Some(0.0))
        );
        assert!(!insight.degraded && insight.behind_turns == 0 && insight.latency_ms.queue == 0);
        let standing = self.durable.standings.get("stats");
        assert!(standing.is_none_or(|standing| standing.pinned.is_none()), "nothing is pinned");
    }

    fn result(&mut self, analysis: &str, turn: TurnNo) {
        let results = self.results.entry((analysis.to_owned(), turn)).or_default();
        *results += 1;
        assert_eq!(*results, 1, "turn {turn} has more than one result of {analysis}");
    }

    /// Checks that all `words` are in durable turns.
    pub(super) fn are_durable<'a>(&self, words: impl IntoIterator<Item = &'a u32>) {
        for word in words {
            assert_eq!(self.words.get(word), Some(&1), "w{word} was acknowledged and is not in the log once");
        }
    }

    /// Checks that words are in the order in which they were said.
    pub(super) fn in_order(&self, stream: &str) {
        let root = |turn: &Turn| turn.stream_id.as_str().split('~').next().map(str::to_owned);
        let mut newest = 0;
        for turn in self.durable.turns.iter().filter(|turn| root(turn).as_deref() == Some(stream)) {
            for word in numbers(&turn.text) {
                assert!(word >= newest, "w{word} of {stream} comes after w{newest}");
                newest = word;
            }
        }
    }

    /// Checks that every turn has exactly one result of a per-turn analysis.
    pub(super) fn every_turn_answered(&self, analysis: &str) {
        for turn in self.durable.turns.iter().filter(|turn| !turn.text.is_empty()) {
            let results = self.results.get(&(analysis.to_owned(), turn.turn));
            assert!(results.is_some(), "turn {} has no result of {analysis}", turn.turn);
        }
    }

    /// A task starts while `running` are in progress.
    pub(super) fn started(key: &TaskKey, running: &BTreeMap<u64, Running>) {
        let same = running.values().filter(|other| other.keys().iter().any(|other| other.analysis == key.analysis));
        match key.turn {
            None => assert_eq!(same.count(), 0, "two tasks of {} at once", key.analysis),
            Some(_) => assert!(same.count() < TURN_JOBS, "too many tasks of {} at once", key.analysis),
        }
    }

    /// A rolling analysis failed.
    pub(super) fn failed(&mut self, key: &TaskKey, now_ms: u64) {
        if key.turn.is_none() {
            // The shortest wait: 500 ms, up to a quarter of which is subtracted as jitter.
            self.not_before.insert(Arc::clone(&key.analysis), now_ms + 375);
        }
    }

    /// A rolling analysis succeeded: it has no wait any more.
    pub(super) fn succeeded(&mut self, key: &TaskKey) {
        self.not_before.remove(&key.analysis);
    }

    /// A rolling analysis starts. `forced`: by hand, or as the last run.
    pub(super) fn wanted(&mut self, key: &TaskKey, now_ms: u64, forced: bool) {
        if key.turn.is_none() && !forced {
            let not_before = self.not_before.get(&key.analysis).copied().unwrap_or(0);
            assert!(now_ms >= not_before, "{} is asked {} ms too early", key.analysis, not_before - now_ms);
        }
    }

    /// The daemon was killed: records that were not durable may be read back or not. The minimum waits between failures
    /// start over. Returns the log from which the call is rebuilt.
    pub(super) fn restarted(&mut self, read: &[Stored]) -> Log {
        let durable = usize::try_from(self.durable.head()).expect("few");
        assert!(read.len() >= durable, "durable records are lost");
        let ends = self.flight.iter().any(|decoded| matches!(decoded.event, Event::CallCompleted { .. }));
        let [mut handed, mut rebuilt] = [(); 2].map(|()| Log::new(self.durable.call_id().clone()));
        for (place, stored) in read.iter().enumerate() {
            let decoded = self.reading.read(stored.seq, &stored.frame, &stored.private);
            if place >= durable {
                self.record(&decoded, ends);
                self.durable.restore(decoded.clone()).expect("a record follows those before it");
            }
            handed.restore(decoded.clone()).expect("a record follows those before it");
            rebuilt.restore(decoded).expect("a record follows those before it");
        }
        same(&handed, &self.durable);
        self.handed = handed;
        self.flight.clear();
        self.compared.clear();
        self.failed_at.clear();
        self.not_before.clear();
        self.by_hand.clear();
        rebuilt
    }
}

/// Checks that both logs are equal.
pub(super) fn same(one: &Log, other: &Log) {
    same_beside_turns_and_insights(one, other);
    assert!(one.turns.iter().eq(other.turns.iter()), "the turns differ");
    for (one, other) in one.standings.values().zip(other.standings.values()) {
        assert_eq!((&one.latest, &one.by_turn), (&other.latest, &other.by_turn));
    }
}

fn same_beside_turns_and_insights(one: &Log, other: &Log) {
    assert_eq!(
        (one.head, one.status, one.ending, &one.epoch, one.started_at_ms),
        (other.head, other.status, other.ending, &other.epoch, other.started_at_ms)
    );
    assert_eq!((&one.meta, &one.analyses, &one.variants), (&other.meta, &other.analyses, &other.variants));
    assert_eq!((&one.newest, one.cost_usd), (&other.newest, other.cost_usd));
    assert_eq!(one.alerts, other.alerts);
    assert_eq!(one.digests, other.digests);
    assert_eq!(one.streams.len(), other.streams.len());
    for (one, other) in one.streams.iter().zip(&other.streams) {
        assert_eq!((&one.id, &one.root, &one.dialect_name), (&other.id, &other.root, &other.dialect_name));
        assert_eq!((one.offset_ms, &one.vendor_session), (other.offset_ms, &other.vendor_session));
        assert_eq!((one.ended, one.replaced, &one.mark), (other.ended, other.replaced, &other.mark));
        assert_eq!((one.started_at_ms, one.ended_at_ms), (other.started_at_ms, other.ended_at_ms));
    }
    assert!(one.standings.keys().eq(other.standings.keys()));
    for (one, other) in one.standings.values().zip(other.standings.values()) {
        assert_eq!((one.rev, &one.pinned, &one.failed_turns), (other.rev, &other.pinned, &other.failed_turns));
        assert_eq!(one.latest.is_some(), other.latest.is_some());
    }
    let context = |log: &Log| (log.context.len(), log.context.revision());
    assert_eq!(context(one), context(other));
    assert!((0..one.context.len() as u64).all(|turn| one.context.tokens(turn) == other.context.tokens(turn)));
}
