//! Figures of a summary that is updated during its call: how soon the summary contains what was said, its quality over
//! time, how much of it is rewritten, and how much it repeats itself.
//!
//! The names are those of "Policies and Evaluation for Online Meeting Summarization" (Schneider, Turchi and Waibel, 2025,
//! arXiv 2502.03111); normalized erasure is from Arivazhagan et al., 2020. The comments here are the definitions.

use std::collections::HashSet;

use serde::Serialize;

use super::rouge;
use crate::types::TurnNo;

/// Points of a call's time at which figures are computed, percent.
pub const SHARES: [u32; 4] = [25, 50, 75, 100];

/// A turn that became final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Call time, ms.
    pub at_ms: u64,
    pub turn: TurnNo,
    pub words: u64,
}

/// A revision of the summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// When it was published, call time, ms.
    pub at_ms: u64,
    /// First turn that it covers.
    pub from: Option<TurnNo>,
    /// Last turn that it covers.
    pub to: Option<TurnNo>,
    /// Words of the summary.
    pub words: Vec<String>,
}

impl Revision {
    fn covers(&self, turn: TurnNo) -> bool {
        self.from.is_some_and(|from| from <= turn) && self.to.is_some_and(|to| turn <= to)
    }
}

/// Figures at one point of a call. `None` if a figure cannot be computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Expected latency, ms: the mean time from the moment at which a word is said (its turn becomes final) to the first
    /// revision that covers it.
    pub el_ms: Option<f64>,
    /// ROUGE-1 (F1) of the current summary, compared with a person's summary of the whole call.
    pub rouge_1: Option<f64>,
    /// ROUGE-L (F1) of the current summary, compared with the same text.
    pub rouge_l: Option<f64>,
    /// Area under the curve of ROUGE-1 over time: the mean ROUGE-1 of the summary that was current at each moment so
    /// far; 0 before the first revision.
    pub r1_auc: Option<f64>,
    /// Normalized erasure: number of words that were replaced so far, divided by the words of the current summary. Each
    /// revision is compared with the one before; all words from the first difference on count as replaced.
    pub ne: Option<f64>,
    /// Redundancy: share of the current summary's word pairs that occur earlier in it.
    pub rf: Option<f64>,
}

/// The summaries of one call over its time.
#[derive(Debug)]
pub struct Timeline<'a> {
    said: &'a [Said],
    revisions: &'a [Revision],
    /// ROUGE-1 and ROUGE-L of each revision; `None` without a person's summary.
    scores: Option<Vec<(f64, f64)>>,
    /// When the last turn became final.
    end_ms: u64,
}

impl<'a> Timeline<'a> {
    /// Makes the timeline of turns and revisions, both in order of time. `reference`: the words of a person's summary.
    pub fn new(said: &'a [Said], revisions: &'a [Revision], reference: Option<&[String]>) -> Self {
        let score = |words: &[String], human: &[String]| (rouge::one(words, human), rouge::longest(words, human));
        let scores = reference
            .map(|human| revisions.iter().map(|revision| score(&revision.words, human)).collect::<Vec<(f64, f64)>>());
        Self { said, revisions, scores, end_ms: said.last().map_or(0, |said| said.at_ms) }
    }

    /// The figures at this percentage of the call's time. At 100 %, the last revision counts too.
    pub fn at(&self, percent: u32) -> Figures {
        let until = self.end_ms * u64::from(percent) / 100;
        let count = match percent {
            100 => self.revisions.len(),
            _ => self.revisions.partition_point(|revision| revision.at_ms <= until),
        };
        let standing = count.checked_sub(1);
        let rouge = standing.zip(self.scores.as_ref()).map(|(standing, scores)| scores[standing]);
        Figures {
            el_ms: self.latency(until),
            rouge_1: rouge.map(|(one, _)| one),
            rouge_l: rouge.map(|(_, longest)| longest),
            r1_auc: self.area(until),
            ne: self.erasure(count),
            rf: standing.and_then(|standing| redundancy(&self.revisions[standing].words)),
        }
    }

    /// The time of each revision and its ROUGE-1; empty without a person's summary.
    pub fn curve(&self) -> Vec<(u64, f64)> {
        let scores = self.scores.iter().flatten();
        self.revisions.iter().zip(scores).map(|(revision, (one, _))| (revision.at_ms, *one)).collect()
    }

    /// Mean latency of all words up to `until`. A word that no revision covers counts as waiting until the last
    /// revision, or until the end of the call.
    fn latency(&self, until: u64) -> Option<f64> {
        let last = self.revisions.last()?.at_ms.max(self.end_ms);
        let (mut waited, mut words) = (0.0, 0);
        for said in self.said.iter().filter(|said| said.at_ms <= until) {
            let covering = self.revisions.iter().find(|revision| revision.covers(said.turn));
            let at = covering.map_or(last, |revision| revision.at_ms);
            waited += at.saturating_sub(said.at_ms) as f64 * said.words as f64;
            words += said.words;
        }
        (words > 0).then(|| waited / words as f64)
    }

    fn area(&self, until: u64) -> Option<f64> {
        let scores = self.scores.as_ref()?;
        let next = self.revisions.iter().skip(1).map(|revision| revision.at_ms).chain([u64::MAX]);
        let stood = self.revisions.iter().zip(next).zip(scores);
        let area: f64 = stood
            .map(|((revision, next), (one, _))| next.min(until).saturating_sub(revision.at_ms.min(until)) as f64 * one)
            .sum();
        (until > 0).then(|| area / until as f64)
    }

    fn erasure(&self, count: usize) -> Option<f64> {
        let revisions = &self.revisions[..count];
        let length = revisions.last().map(|last| last.words.len()).filter(|length| *length > 0)?;
        let erased: usize = revisions.windows(2).map(|pair| erased(&pair[0].words, &pair[1].words)).sum();
        Some(erased as f64 / length as f64)
    }
}

/// Number of words of `before` from the first word on that differs in `after`.
fn erased(before: &[String], after: &[String]) -> usize {
    before.len() - before.iter().zip(after).take_while(|(old, new)| old == new).count()
}

fn redundancy(words: &[String]) -> Option<f64> {
    let pairs = words.len().checked_sub(1).filter(|pairs| *pairs > 0)?;
    let distinct: HashSet<&[String]> = words.windows(2).collect();
    Some(1.0 - distinct.len() as f64 / pairs as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(at_ms: u64, to: TurnNo, text: &str) -> Revision {
        Revision { at_ms, from: Some(0), to: Some(to), words: rouge::tokens(text) }
    }

    fn said(at_ms: u64, turn: TurnNo, words: u64) -> Said {
        Said { at_ms, turn, words }
    }

    fn near(found: Option<f64>, right: f64) -> bool {
        found.is_some_and(|found| (found - right).abs() < 1e-9)
    }

    #[test]
    fn figures_are_those_of_a_calculation_by_hand() {
        // A call of 8 s. The first revision covers turns 0 and 1, the second all.
        let said = [said(1_000, 0, 10), said(3_000, 1, 30), said(8_000, 2, 10)];
        let revisions = [revision(4_000, 1, "the car is late"), revision(9_000, 2, "the car came back the car came")];
        let human = rouge::tokens("the car came");
        let timeline = Timeline::new(&said, &revisions, Some(&human));
        let whole = timeline.at(100);
        // 10 words wait for 3 s, 30 for 1 s, 10 for 1 s.
        assert!(near(whole.el_ms, (10.0 * 3_000.0 + 30.0 * 1_000.0 + 10.0 * 1_000.0) / 50.0), "{whole:?}");
        // Three words in common: 2 * 3 / (7 + 3).
        assert!(near(whole.rouge_1, 0.6) && near(whole.rouge_l, 0.6), "{whole:?}");
        // Nothing for 4 s, then 2 * 2 / (4 + 3) for 4 s.
        assert!(near(whole.r1_auc, 0.5 * 4.0 / 7.0), "{whole:?}");
        // "is late" was replaced; the second has 7 words.
        assert!(near(whole.ne, 2.0 / 7.0), "{whole:?}");
        // the car, car came, came back, back the, the car, car came: 4 distinct of 6.
        assert!(near(whole.rf, 1.0 - 4.0 / 6.0), "{whole:?}");
        let half = timeline.at(50);
        assert!(near(half.el_ms, (30_000.0 + 30_000.0) / 40.0) && near(half.rouge_1, 4.0 / 7.0), "{half:?}");
        assert!(near(half.r1_auc, 0.0) && near(half.ne, 0.0) && near(half.rf, 0.0), "{half:?}");
        let quarter = timeline.at(25);
        assert_eq!((quarter.rouge_1, quarter.ne, quarter.rf), (None, None, None));
        assert!(near(quarter.el_ms, 3_000.0) && near(quarter.r1_auc, 0.0), "{quarter:?}");
    }

    #[test]
    fn empty_input_has_no_score() {
        let said = [said(1_000, 0, 10)];
        assert_eq!(Timeline::new(&said, &[], None).at(100), Figures::default());
        let unread = [revision(5_000, 0, "one word")];
        let figures = Timeline::new(&[], &unread, None).at(100);
        assert_eq!((figures.el_ms, figures.rouge_1, figures.r1_auc), (None, None, None));
        assert!(near(figures.ne, 0.0) && near(figures.rf, 0.0));
    }

    #[test]
    fn words_that_are_never_covered_count_until_the_end() {
        let said = [said(1_000, 0, 1), said(2_000, 7, 1)];
        let revisions = [revision(3_000, 0, "a"), revision(6_000, 0, "a b")];
        assert!(near(Timeline::new(&said, &revisions, None).at(100).el_ms, (2_000.0 + 4_000.0) / 2.0));
    }
}
