//! Simultaneous speech: how long a turn overlaps with other turns.
//!
//! Knows only the times, labels and streams of turns. A pause within a turn counts as speech, because a turn has only
//! one start and one end.

use crate::types::Turn;

/// The longest period in which another speaker speaks during `turn`, as (start, end) in ms of the call; `None` if there
/// is none. `others` are the turns to compare with; `turn` may be among them.
pub fn overlap<'a>(turn: &Turn, others: impl Iterator<Item = &'a Turn>) -> Option<(u64, u64)> {
    let both = others.filter(|other| is_other_voice(turn, other)).map(|other| {
        let start = turn.start_ms.max(other.start_ms);
        (start, turn.end_ms.min(other.end_ms).max(start))
    });
    both.filter(|(start, end)| end > start).max_by_key(|(start, end)| end - start)
}

/// Returns true for a turn of another stream, or of another label in the same stream. A turn without text was emptied
/// by a correction and does not count.
fn is_other_voice(turn: &Turn, other: &Turn) -> bool {
    let labels = turn.speaker.is_some() && other.speaker.is_some() && turn.speaker != other.speaker;
    turn.turn != other.turn
        && !turn.text.is_empty()
        && !other.text.is_empty()
        && (turn.stream_id != other.stream_id || labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::tests::turn;

    fn at(number: u64, speaker: &str, start_ms: u64, end_ms: u64) -> Turn {
        Turn { start_ms, end_ms, ..turn(number, speaker, "words") }
    }

    #[test]
    fn longest_stretch_of_another_voice_counts() {
        let others = [at(0, "A", 0, 1_000), at(1, "B", 900, 5_000), at(2, "A", 2_000, 4_000)];
        assert_eq!(overlap(&others[2], others.iter()), Some((2_000, 4_000)));
        assert_eq!(overlap(&others[0], others.iter()), Some((900, 1_000)));
        assert_eq!(overlap(&at(3, "B", 2_000, 2_500), others.iter()), Some((2_000, 2_500)));
        assert_eq!(overlap(&at(3, "B", 6_000, 7_000), others.iter()), None);
    }

    #[test]
    fn same_voice_and_empty_turns_do_not_count() {
        let first = at(0, "A", 0, 1_000);
        assert_eq!(overlap(&at(1, "A", 0, 1_000), [&first].into_iter()), None);
        let unnamed = Turn { speaker: None, ..at(1, "", 0, 1_000) };
        assert_eq!(overlap(&unnamed, [&first].into_iter()), None);
        let leg = Turn { stream_id: crate::types::StreamId::parse("s_2").expect("id"), ..unnamed };
        assert_eq!(overlap(&leg, [&first].into_iter()), Some((0, 1_000)), "another leg");
        let empty = Turn { text: String::new(), ..at(1, "B", 0, 1_000) };
        assert_eq!(overlap(&empty, [&first].into_iter()), None);
    }
}
