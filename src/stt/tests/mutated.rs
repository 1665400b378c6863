//! Randomly changed frames do no harm, and frames in any order give the same turns.

use proptest::prelude::*;

use super::*;
use crate::base::testing::kept;

/// A frame with bytes changed, removed, inserted, or its end repeated.
fn mutated(frame: &str, edits: &[(usize, u8, u8)]) -> String {
    let mut bytes = frame.as_bytes().to_vec();
    for (at, how, byte) in edits {
        let at = at % bytes.len().max(1);
        match how % 4 {
            0 if !bytes.is_empty() => bytes[at] = *byte,
            1 if !bytes.is_empty() => drop(bytes.remove(at)),
            2 => bytes.insert(at, *byte),
            _ => {
                let tail = bytes[at.min(bytes.len())..].to_vec();
                bytes.extend(tail);
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last state of each turn, by key: its newest final, but a formatted one is never replaced by an unformatted one.
fn outcome(dialect: &dyn Dialect, frames: &[String]) -> std::collections::BTreeMap<String, Essence> {
    let mut decoder = dialect.open();
    let mut turns = finals(&mut *decoder, frames);
    let mut rest = Vec::new();
    decoder.finish(&mut rest);
    turns.extend(rest.into_iter().filter_map(the_final));
    let mut last = std::collections::BTreeMap::<String, Final>::new();
    // A final with empty text is not a turn.
    for turn in turns.into_iter().filter(|turn| !turn.text.is_empty()) {
        let key = format!("{:?}", turn.key);
        if turn.formatted || last.get(&key).is_none_or(|known| !known.formatted) {
            last.insert(key, turn);
        }
    }
    last.into_iter().filter_map(|(key, turn)| Some((key, essence(&[turn]).pop()?))).collect()
}

/// Shuffles `items` into an order that depends only on `seed`.
fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for index in (1..items.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = (seed >> 33) as usize % (index + 1);
        items.swap(index, other);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..kept() })]

    #[test]
    fn mutated_frames_change_no_earlier_event(
        picks in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 0..4)), 1..30),
        which in any::<prop::sample::Index>(),
    ) {
        let fixtures = fixtures();
        let (dialect, _, frames) = &fixtures[which.index(fixtures.len())];
        let mut decoder = dialect.open();
        for (pick, edits) in picks {
            let frame = mutated(&frames[pick.index(frames.len())], &edits);
            let sentinel = SttEvent::Unknown { kind: "sentinel".to_owned() };
            let mut out = vec![sentinel.clone()];
            let holding = decoder.holding();
            match decoder.decode(&frame, &mut out) {
                Ok(_) => prop_assert_eq!(&out[0], &sentinel),
                Err(error) => {
                    prop_assert_eq!(out.len(), 1);
                    prop_assert_eq!(decoder.holding(), holding);
                    prop_assert!(!error.message.is_empty() && error.message.len() < 400, "{}", error.message);
                }
            }
            for event in &out {
                if let SttEvent::Final(turn) = event {
                    prop_assert!(turn.words.iter().all(|word| word.start_ms <= word.end_ms));
                    prop_assert!(turn.confidence.is_none_or(|confidence| (0.0..=1.0).contains(&confidence)));
                }
            }
        }
        let mut out = Vec::new();
        decoder.finish(&mut out);
        prop_assert!(!decoder.holding());
    }

    #[test]
    fn refused_frame_adds_no_events(frame in ".{0,200}", which in any::<prop::sample::Index>()) {
        let dialect = DIALECTS[which.index(DIALECTS.len())];
        let mut out = Vec::new();
        if dialect.open().decode(&frame, &mut out).is_err() {
            prop_assert!(out.is_empty());
        }
    }

    #[test]
    fn named_turns_come_out_alike_in_any_order_and_repetition(
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        order in any::<u64>(),
        which in 0..6_usize,
    ) {
        let (name, case) = [
            ("sidetone", "full"), ("assemblyai", "full"), ("openai_realtime", "full"), ("openai_realtime", "diarized"),
            ("openai_realtime", "unknown"), ("openai_realtime", "agent"),
        ][which];
        let fixtures = fixtures();
        let found = fixtures.iter().find(|(dialect, found, _)| dialect.name() == name && found == case);
        let (dialect, _, frames) = found.expect("there");
        // Each frame at least once, some repeatedly, in any order.
        let mut shuffled: Vec<&String> = frames.iter().chain(again.iter().map(|index| &frames[index.index(frames.len())])).collect();
        shuffle(&mut shuffled, order);
        let shuffled: Vec<String> = shuffled.into_iter().cloned().collect();
        let (expected, came_out) = (outcome(*dialect, frames), outcome(*dialect, &shuffled));
        prop_assert_eq!(came_out, expected, "{}/{}", name, case);
    }
}
