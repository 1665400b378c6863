//! Coverage as a reader of the prompt finds it.

use crate::context::Snapshot;
use crate::types::TurnNo;

/// Checks that a snapshot covers what its texts show, and nothing else: turns that have a line, and turns of which there
/// is a digest. No turn of the digests has a line, except as a correction.
pub(super) fn honest(snapshot: &Snapshot) {
    let (mut verbatim, mut digested): (Vec<TurnNo>, Vec<TurnNo>) = (Vec::new(), Vec::new());
    for line in snapshot.parts().flat_map(|part| part.lines()) {
        if let Some(turns) = line.strip_prefix("In short, turns ") {
            let (from, to) = turns.trim_end_matches(':').split_once(" to ").expect("a range");
            let (from, to): (TurnNo, TurnNo) = (from.parse().expect("a turn"), to.parse().expect("a turn"));
            assert!(digested.last().is_none_or(|last| *last + 1 == from), "a hole between digests");
            digested.extend(from..=to);
        } else if !line.starts_with('*') {
            let number = line.strip_prefix('[').and_then(|rest| rest.split_once(']')).expect("a turn's line").0;
            verbatim.push(number.parse().expect("a number"));
        }
    }
    // Since they were shown, turns may have lost their text, or have one only now.
    let corrected = snapshot.corrections().lines().filter_map(|line| line.strip_prefix('[')?.split_once(']'));
    verbatim.extend(corrected.filter_map(|(number, _)| number.parse::<TurnNo>().ok()));
    verbatim.sort_unstable();
    verbatim.dedup();
    verbatim.retain(|turn| snapshot.turn(*turn).is_some());
    digested.retain(|turn| snapshot.held(*turn).is_some());
    assert!(verbatim.iter().all(|turn| !digested.contains(turn)));
    let covers = snapshot.covers();
    let (first, last) = (verbatim.first().copied(), verbatim.last().copied());
    assert_eq!(covers.turns as usize, digested.len() + verbatim.len());
    assert_eq!((covers.verbatim_from, covers.digest_to), (first, digested.last().copied()));
    assert_eq!((covers.from, covers.to), (digested.first().copied().or(first), last.or(digested.last().copied())));
}
