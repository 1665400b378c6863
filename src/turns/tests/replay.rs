//! A table that is rebuilt from its journal, at any point of any sequence of a vendor's events, equals the live one.

use proptest::prelude::*;

use super::*;
use crate::base::testing::kept;

/// Events that a vendor like AssemblyAI may send about four turns: raw and formatted finals with and without word
/// speakers, revisions, empty finals, merges.
fn any_event() -> impl Strategy<Value = SttEvent> {
    let labels = prop::collection::vec(prop::sample::select(vec!["A", "B", "_"]), 1..5);
    (0..4_u64, 0..8_u8, labels, any::<bool>()).prop_map(|(id, kind, labels, shifted)| {
        let spec: Vec<String> = labels
            .iter()
            .enumerate()
            .map(|(at, label)| {
                let start = id * 10_000 + at as u64 * 200 + u64::from(shifted) * 90;
                format!("{label}:w{at}@{start}-{}", start + 150)
            })
            .collect();
        let (spec, text) = (spec.join(" "), (0..labels.len()).map(|at| format!("w{at}")).collect::<Vec<_>>().join(" "));
        match kind {
            0 | 1 => last(vendor(id), false, &text, &spec),
            2 | 3 => last(vendor(id), true, &format!("{}.", text.to_uppercase()), &spec),
            4 => last(vendor(id), true, "", ""),
            5 => revise(vendor(id), Some(labels[0]), None, &spec),
            6 => revise(vendor(id), None, Some(&text), ""),
            _ => SttEvent::MergeSpeakers { from: "B".into(), to: "A".into() },
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..kept() })]

    #[test]
    fn the_journal_rebuilds_the_table(events in prop::collection::vec(any_event(), 1..24)) {
        let mut table = Table::default();
        for event in &events {
            let before = table.turns.len();
            let changes = table.apply(event);
            // Ordinals and orders are dense, and no turn is ever removed.
            prop_assert!(table.turns.len() >= before);
            for change in &changes {
                let stands = table.turns.get(change.turn.turn).expect("there");
                prop_assert!(stands.rev >= change.turn.rev);
                prop_assert_eq!((stands.turn_order, &stands.vendor_turn), (change.turn.turn_order, &change.turn.vendor_turn));
            }
            assert_same(&table.turns, &table.restored());
        }
        for (at, turn) in table.turns.iter().enumerate() {
            prop_assert_eq!((turn.turn, turn.turn_order), (at as u64, at as u64));
        }
        // A restored table behaves exactly like the live one, except after merges of turns that never came.
        let mut restored = table.restored();
        let live_holds = !table.turns.streams.values().all(|stream| stream.unsaved.is_empty());
        if !live_holds {
            for event in &events {
                let (mut one, mut two) = (Vec::new(), Vec::new());
                let _ = table.turns.apply(&stream(), true, 1_000, 77, event, &mut one);
                let _ = restored.apply(&stream(), true, 1_000, 77, event, &mut two);
                prop_assert_eq!(one, two);
            }
        }
    }

    /// Two finals for each of ten turns, in any order and with any repetition.
    #[test]
    fn finals_in_any_order_give_each_turn_once(
        order in Just((0..20_usize).collect::<Vec<_>>()).prop_shuffle(),
        again in prop::collection::vec(0..20_usize, 0..40),
        cut in any::<bool>(),
    ) {
        let events: Vec<SttEvent> = (0..20_u64).map(|index| {
            let (id, formatted) = (index / 2, index % 2 == 1);
            let at = id * 1_000;
            let second = if cut && id % 3 == 0 { "B" } else { "A" };
            let spec = format!("A:one{id}@{at}-{} {second}:two{id}@{}-{}", at + 100, at + 200, at + 300);
            let text = if formatted { format!("One{id}, two{id}!") } else { format!("one{id} two{id}") };
            last(vendor(id), formatted, &text, &spec)
        }).collect();
        let mut table = Table::default();
        for index in order.iter().chain(&again) {
            table.apply(&events[*index]);
        }
        let mut found: Vec<(String, String)> =
            table.turns.iter().map(|turn| (turn.vendor_turn.clone().expect("id"), turn.text.clone())).collect();
        found.sort();
        let mut expected: Vec<(String, String)> = (0..10_u64).flat_map(|id| {
            let texts = if cut && id % 3 == 0 {
                vec![format!("One{id},"), format!("two{id}!")]
            } else {
                vec![format!("One{id}, two{id}!")]
            };
            texts.into_iter().map(move |text| (id.to_string(), text))
        }).collect();
        expected.sort();
        prop_assert_eq!(found, expected);
        assert_same(&table.turns, &table.restored());
    }
}
