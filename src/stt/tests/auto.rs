//! The dialect of a stream is found by its first frames: as a hint for one that names another, and by `auto`.

use super::*;

#[test]
fn frames_in_another_dialect_are_suggested_their_own() {
    for (dialect, name, frames) in ordinary() {
        let first: Vec<&str> = frames.iter().take(5).map(String::as_str).collect();
        let auto = super::dialect("auto").expect("auto");
        assert_eq!(likelier(auto, &first).map(Dialect::name), Some(dialect.name()), "{}/{name}", dialect.name());
        for other in DIALECTS.iter().filter(|other| other.name() != dialect.name() && !other.picks()) {
            let message = not_understood(*other, "5 frames", &first);
            let advice = format!("connect with dialect={}", dialect.name());
            assert!(message.ends_with(&advice), "{}/{name} as {}: {message}", dialect.name(), other.name());
        }
    }
}

#[test]
fn frames_in_another_dialect_are_no_speech() {
    // The Voice SDK of Speechmatics forwards messages of the real-time API.
    let shared = [("speechmatics", "speechmatics_agent"), ("speechmatics_agent", "speechmatics")];
    for (dialect, name, frames) in ordinary() {
        for other in DIALECTS.iter().filter(|other| other.name() != dialect.name() && !other.picks()) {
            let (mut decoder, mut known) = (other.open(), 0);
            for frame in &frames {
                let mut events = Vec::new();
                let result = decoder.decode(frame, &mut events);
                known += usize::from(Fit::of(&result, &events, decoder.holding()) == Fit::Known);
                let speech = events.iter().any(|event| matches!(event, SttEvent::Final(_) | SttEvent::Partial { .. }));
                assert!(!speech, "{}/{name} as {}: {frame}", dialect.name(), other.name());
            }
            let allowed = if shared.contains(&(dialect.name(), other.name())) { frames.len() } else { 0 };
            assert!(known <= allowed, "{}/{name} as {}: {known} frames are known", dialect.name(), other.name());
        }
    }
}

#[test]
fn auto_picks_the_dialect_of_every_fixture_and_loses_nothing() {
    for (dialect, name, frames) in ordinary() {
        let mut auto = super::dialect("auto").expect("auto").open();
        let mut picked = said(&mut *auto, &frames);
        let context = format!("{}/{name}", dialect.name());
        assert_eq!(auto.picked().map(Dialect::name), Some(dialect.name()), "{context}");
        let first = picked.iter().position(|line| line.starts_with("Dialect")).expect("the pick is told");
        assert_eq!(picked.remove(first), format!("Dialect {{ name: {:?} }}", dialect.name()), "{context}");
        picked.retain(|line| !line.contains("undecided"));
        let mut own = said(&mut *dialect.open(), &frames);
        // Before the pick, frames that no dialect knows are reported as `undecided`, not by their own type.
        own.retain(|line| !line.starts_with("Unknown"));
        picked.retain(|line| !line.starts_with("Unknown"));
        assert_eq!(picked, own, "{context}");
    }
}

#[test]
fn auto_picks_the_same_when_frames_are_sent_again_from_the_last_ack() {
    for (dialect, name, frames) in ordinary() {
        let (mut auto, mut acked) = (super::dialect("auto").expect("auto").open(), 0);
        for (index, frame) in frames.iter().enumerate() {
            let _ = auto.decode(frame, &mut Vec::new());
            if auto.picked().is_some() {
                break;
            }
            if !auto.holding() {
                acked = index + 1;
            }
        }
        let mut again = super::dialect("auto").expect("auto").open();
        said(&mut *again, &frames[acked..]);
        assert_eq!(again.picked().map(Dialect::name), Some(dialect.name()), "{}/{name} from {acked}", dialect.name());
    }
}

#[test]
fn auto_with_a_tie_takes_the_first_that_is_listed() {
    let mut auto = super::dialect("auto").expect("auto").open();
    let mut out = Vec::new();
    auto.decode(r#"{"message":"RecognitionStarted","id":"s"}"#, &mut out).expect("known");
    for _ in 0..62 {
        auto.decode(r#"{"message":"AudioAdded","seq_no":1}"#, &mut out).expect("known");
        assert!(out.is_empty() && auto.holding() && auto.picked().is_none());
    }
    auto.decode(r#"{"message":"AudioAdded","seq_no":1}"#, &mut out).expect("known");
    assert!(matches!(out[..], [SttEvent::Dialect { name: "speechmatics" }, SttEvent::Begin { .. }]), "{out:?}");
    assert!(!auto.holding());
}
