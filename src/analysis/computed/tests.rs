use proptest::prelude::*;

use super::*;
use crate::base::testing::kept;
use crate::types::StreamId;

fn turn(speaker: &str, start_ms: u64, end_ms: u64) -> Turn {
    Turn {
        turn: 0,
        stream_id: StreamId::parse("s_1").expect("id"),
        turn_order: 0,
        vendor_turn: None,
        rev: 0,
        speaker: (!speaker.is_empty()).then(|| speaker.to_owned()),
        text: "words".to_owned(),
        start_ms,
        end_ms,
        language: None,
        confidence: None,
        words: Vec::new(),
    }
}

fn figures(turns: &[(&str, u64, u64)]) -> Value {
    let turns: Vec<Turn> = turns.iter().map(|(speaker, start, end)| turn(speaker, *start, *end)).collect();
    stats(&turns)
}

#[test]
fn figures_of_a_short_conversation() {
    let value = figures(&[
        ("agent", 0, 2_000),
        ("customer", 2_500, 6_000),
        // Within the customer's speech: a sign of listening that does not take the turn.
        ("agent", 4_000, 4_400),
        // Begins 500 ms before the customer's speech ends, and continues: an interruption.
        ("agent", 5_500, 8_000),
        ("customer", 9_000, 9_500),
        ("agent", 9_700, 10_000),
    ]);
    assert_eq!(
        value,
        json!({
            "talk_ms": {"agent": 2_000 + 400 + 2_500 + 300, "customer": 3_500 + 500},
            "turns": {"agent": 4, "customer": 2},
            "silence_ms": 500 + 1_000 + 200,
            "overlap_ms": 400 + 500,
            "interruptions": {"agent": 1, "customer": 0},
            "longest_turn_ms": 3_500,
            // The agent's only value is 200. The customer's values are 500 and 1,000; the median is the lower one.
            "response_ms_p50": {"agent": 200, "customer": 500},
        })
    );
}

#[test]
fn call_without_speech_has_no_figures() {
    let nothing = json!({
        "talk_ms": {}, "turns": {}, "silence_ms": 0, "overlap_ms": 0, "interruptions": {}, "longest_turn_ms": 0,
        "response_ms_p50": {},
    });
    assert_eq!(figures(&[]), nothing);
    assert_eq!(stats(&[Turn { text: " \n".to_owned(), ..turn("A", 0, 5_000) }]), nothing);
}

#[test]
fn interruption_is_not_the_end_of_a_turn_or_a_backchannel() {
    let count = |turns: &[(&str, u64, u64)]| {
        let value = figures(turns);
        let of = |speaker: &str| value["interruptions"][speaker].as_u64().unwrap_or(0);
        (of("A"), of("B"))
    };
    for (turns, expected, why) in [
        (&[("A", 0, 1_000), ("B", 800, 2_000)][..], (0, 1), "200 ms before the end"),
        (&[("A", 0, 1_000), ("B", 801, 2_000)], (0, 0), "less than that"),
        (&[("A", 0, 1_000), ("B", 500, 1_000)], (0, 0), "does not go on"),
        (&[("A", 0, 1_000), ("B", 0, 2_000)], (0, 0), "both begin at once"),
        (&[("A", 0, 1_000), ("A", 1_000, 3_000), ("B", 500, 2_000)], (0, 0), "the other goes on in another turn"),
        (&[("A", 0, 1_000), ("B", 500, 2_000), ("A", 1_500, 3_000)], (1, 1), "each once"),
        (&[("A", 0, 5_000), ("A", 1_000, 2_000), ("B", 4_000, 6_000)], (0, 1), "a short turn hides no long one"),
        (&[("C", 0, 5_000), ("A", 1_000, 2_000), ("B", 1_500, 3_000)], (0, 0), "the third speaker goes on"),
    ] {
        assert_eq!(count(turns), expected, "{why}");
    }
}

#[test]
fn responses_begin_in_silence_after_another_speaker() {
    let value = figures(&[
        ("A", 0, 1_000),
        ("A", 2_000, 3_000),
        ("B", 3_300, 4_000),
        // Spoken while B talks: not a response.
        ("A", 3_900, 5_000),
        ("", 5_000, 6_000),
    ]);
    assert_eq!(value["response_ms_p50"], json!({"A": null, "B": 300, "unknown": 0}));
}

/// Counts separately for each ms who talks in it.
fn counted(turns: &[(u8, u64, u64)]) -> (BTreeMap<u8, u64>, u64, u64) {
    let last = turns.iter().map(|turn| turn.2).max().unwrap_or(0);
    let first = turns.iter().map(|turn| turn.1).min().unwrap_or(0);
    let (mut talk, mut silence, mut overlap) = (BTreeMap::new(), 0, 0);
    for (speaker, ..) in turns {
        talk.entry(*speaker).or_insert(0);
    }
    for at in first..last {
        let talks = |speaker: u8| turns.iter().any(|turn| turn.0 == speaker && (turn.1..turn.2).contains(&at));
        let mut talking = 0;
        for (speaker, ms) in &mut talk {
            if talks(*speaker) {
                *ms += 1;
                talking += 1;
            }
        }
        silence += u64::from(talking == 0);
        overlap += u64::from(talking > 1);
    }
    (talk, silence, overlap)
}

const LABELS: [&str; 4] = ["A", "B", "C", "D"];

fn turns() -> impl Strategy<Value = Vec<(u8, u64, u64)>> {
    let turn = (0..4_u8, 0..300_u64, 0..60_u64).prop_map(|(speaker, start, length)| (speaker, start, start + length));
    prop::collection::vec(turn, 0..14)
}

fn named(turns: &[(u8, u64, u64)]) -> Vec<(&'static str, u64, u64)> {
    turns.iter().map(|(speaker, start, end)| (LABELS[usize::from(*speaker)], *start, *end)).collect()
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn times_are_those_counted_ms_by_ms(turns in turns()) {
        let value = figures(&named(&turns));
        let (talk, silence, overlap) = counted(&turns);
        let talk: BTreeMap<&str, u64> = talk.into_iter().map(|(speaker, ms)| (LABELS[usize::from(speaker)], ms)).collect();
        prop_assert_eq!(&value["talk_ms"], &json!(talk));
        prop_assert_eq!((&value["silence_ms"], &value["overlap_ms"]), (&json!(silence), &json!(overlap)));
        let counts: u64 = value["turns"].as_object().expect("turns").values().filter_map(Value::as_u64).sum();
        prop_assert_eq!(counts, turns.len() as u64);
    }

    #[test]
    fn order_in_which_turns_came_changes_nothing((turns, shuffled) in turns().prop_flat_map(|turns| (Just(turns.clone()), Just(turns).prop_shuffle()))) {
        prop_assert_eq!(figures(&named(&turns)), figures(&named(&shuffled)));
    }

    #[test]
    fn two_speakers_share_the_time(turns in turns()) {
        let two: Vec<_> = turns.into_iter().map(|(speaker, start, end)| (speaker % 2, start, end)).collect();
        let value = figures(&named(&two));
        let talk: u64 = value["talk_ms"].as_object().expect("talk").values().filter_map(Value::as_u64).sum();
        let of = |name: &str| value[name].as_u64().expect("a number");
        let first = two.iter().map(|turn| turn.1).min().unwrap_or(0);
        let last = two.iter().map(|turn| turn.2).max().unwrap_or(0);
        prop_assert_eq!(talk - of("overlap_ms") + of("silence_ms"), last - first);
    }
}
