//! The values that are computed without a model: `stats`, figures about a conversation from the times of its turns.
//!
//! Knows no clock, no snapshot and no text except whether there is any: turns in any order give the same figures. Takes
//! time linear in the number of turns, apart from sorting them by start, which takes linear time if they are almost
//! sorted.
//!
//! The figures, in call time, over turns with text (a turn without a speaker counts for the speaker `unknown`):
//! * A speaker *talks* from the start to the end of each turn; time that several of the speaker's turns share counts
//!   once.
//! * `overlap_ms`: time in which two speakers or more talk. `silence_ms`: time in which nobody talks, between the first
//!   start and the last end.
//! * A *stretch* is the time of one speaker's turns that touch or overlap. A speaker *interrupts* another if a stretch
//!   of the first begins within a stretch of the other, at least [`INTERRUPTION_MS`] before its end, and continues
//!   after that end. If it begins within stretches of several others, the one that ends last counts. A stretch that
//!   ends within another one ("uh-huh") interrupts nobody.
//! * A *response* begins while nobody talks, after speech of another speaker; its time is from the end of that speech
//!   to its own start. The median of an even number of values is the lower of the two in the middle.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::types::Turn;

/// A speaker whose speech continues for less than this after another one begins was not interrupted, ms: the boundaries
/// that speech recognition gives are not more exact.
const INTERRUPTION_MS: u64 = 200;
/// The speaker of turns without one, as in prompts.
const UNKNOWN: &str = "unknown";

/// Speech of one speaker, call time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span<'a> {
    start: u64,
    end: u64,
    speaker: &'a str,
}

/// The figures of one speaker.
#[derive(Debug, Default)]
struct Counts {
    talk_ms: u64,
    turns: u64,
    interruptions: u64,
    responses: Vec<u64>,
}

pub(super) fn stats<'a>(turns: impl IntoIterator<Item = &'a Turn>) -> Value {
    let mut spans: Vec<Span<'a>> = turns.into_iter().filter_map(span).collect();
    spans.sort();
    let mut speakers: BTreeMap<&str, Counts> = BTreeMap::new();
    for span in &spans {
        speakers.entry(span.speaker).or_default().turns += 1;
    }
    let stretches = stretches(&spans);
    for stretch in &stretches {
        speakers.entry(stretch.speaker).or_default().talk_ms += stretch.end - stretch.start;
    }
    count_interruptions(&stretches, &mut speakers);
    count_responses(&spans, &mut speakers);
    let (silence_ms, overlap_ms) = silence_and_overlap(&stretches);
    let longest_ms = spans.iter().map(|span| span.end - span.start).max().unwrap_or(0);
    let each = |figure: &dyn Fn(&Counts) -> Value| -> Map<String, Value> {
        speakers.iter().map(|(speaker, counts)| ((*speaker).to_owned(), figure(counts))).collect()
    };
    json!({
        "talk_ms": each(&|counts| counts.talk_ms.into()),
        "turns": each(&|counts| counts.turns.into()),
        "silence_ms": silence_ms,
        "overlap_ms": overlap_ms,
        "interruptions": each(&|counts| counts.interruptions.into()),
        "longest_turn_ms": longest_ms,
        "response_ms_p50": each(&|counts| median(&counts.responses).into()),
    })
}

fn span(turn: &Turn) -> Option<Span<'_>> {
    let says_something = turn.text.chars().any(|character| !character.is_whitespace());
    let speaker = turn.speaker.as_deref().filter(|speaker| !speaker.is_empty()).unwrap_or(UNKNOWN);
    says_something.then(|| Span { start: turn.start_ms, end: turn.end_ms.max(turn.start_ms), speaker })
}

/// The stretches of all speakers, sorted by start. `spans` must be sorted by start.
fn stretches<'a>(spans: &[Span<'a>]) -> Vec<Span<'a>> {
    let mut stretches: Vec<Span<'a>> = Vec::with_capacity(spans.len());
    let mut newest: BTreeMap<&str, usize> = BTreeMap::new();
    for span in spans {
        match newest.get(span.speaker).map(|index| &mut stretches[*index]) {
            Some(stretch) if span.start <= stretch.end => stretch.end = stretch.end.max(span.end),
            _ => {
                newest.insert(span.speaker, stretches.len());
                stretches.push(*span);
            }
        }
    }
    stretches
}

/// Time in which nobody talks, and time in which several talk. `stretches` of one speaker do not overlap.
fn silence_and_overlap(stretches: &[Span<'_>]) -> (u64, u64) {
    let starts = stretches.iter().map(|stretch| (stretch.start, true));
    let ends = stretches.iter().map(|stretch| (stretch.end, false));
    let mut changes: Vec<(u64, bool)> = starts.chain(ends).collect();
    changes.sort_unstable();
    let (mut silence, mut overlap, mut talking) = (0, 0, 0_usize);
    let mut since = changes.first().map_or(0, |(at, _)| *at);
    // Starts and ends at the same time are counted together, because a turn of zero length has both.
    for group in changes.chunk_by(|one, other| one.0 == other.0) {
        let at = group[0].0;
        match talking {
            0 => silence += at - since,
            1 => {}
            _ => overlap += at - since,
        }
        since = at;
        let began = group.iter().filter(|(_, is_start)| *is_start).count();
        talking = (talking + began).saturating_sub(group.len() - began);
    }
    (silence, overlap)
}

/// `stretches` must be sorted by start.
fn count_interruptions<'a>(stretches: &[Span<'a>], speakers: &mut BTreeMap<&'a str, Counts>) {
    // Of the stretches that began earlier: the one that ends last, and the one that ends last among those of all other
    // speakers.
    let (mut last, mut second): (Option<Span<'_>>, Option<Span<'_>>) = (None, None);
    for together in stretches.chunk_by(|one, other| one.start == other.start) {
        for stretch in together {
            let held = [last, second].into_iter().flatten().find(|other| other.speaker != stretch.speaker);
            let interrupts =
                held.is_some_and(|other| other.end >= stretch.start + INTERRUPTION_MS && stretch.end > other.end);
            if interrupts && let Some(counts) = speakers.get_mut(stretch.speaker) {
                counts.interruptions += 1;
            }
        }
        for stretch in together {
            match last {
                Some(known) if known.speaker == stretch.speaker => {
                    last = Some(if stretch.end >= known.end { *stretch } else { known });
                }
                Some(known) if stretch.end <= known.end => {
                    second = second.filter(|other| other.end >= stretch.end).or(Some(*stretch));
                }
                _ => (second, last) = (last, Some(*stretch)),
            }
        }
    }
}

/// `spans` must be sorted by start.
fn count_responses<'a>(spans: &[Span<'a>], speakers: &mut BTreeMap<&'a str, Counts>) {
    // The speech that ended last so far; if several ended at the same time, that of the first speaker by label.
    let mut last: Option<Span<'_>> = None;
    for span in spans {
        if let Some(before) = last
            && before.end <= span.start
            && before.speaker != span.speaker
            && let Some(counts) = speakers.get_mut(span.speaker)
        {
            counts.responses.push(span.start - before.end);
        }
        let later = |before: Span<'_>| (span.end, before.speaker) > (before.end, span.speaker);
        if last.is_none_or(later) {
            last = Some(*span);
        }
    }
}

/// The middle value; for an even number of values, the lower of the two in the middle.
fn median(values: &[u64]) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests;
