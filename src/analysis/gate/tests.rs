use super::*;
use crate::analysis::folder::Folder;
use crate::analysis::settings::{PartialSettings, Settings};

/// Returns true if the last turn adds nothing to those before it.
fn passed(turns: &[&str]) -> bool {
    let (last, before) = turns.split_last().expect("a turn");
    adds_nothing(last, before.iter().rev().copied())
}

const NEWS: &str = "The refund for the second bill was sent this morning.";

#[test]
fn gate_ignores_backchannels_courtesies_and_repetitions() {
    for text in [
        "Uh-huh.",
        "okay",
        "Mm-hmm, yeah.",
        "Okay, thank you.",
        "thank you for calling have a great day",
        "Is there anything else I can help you with?",
        "Bye bye.",
        "The second bill.",
    ] {
        assert!(passed(&[NEWS, text]), "{text}");
    }
    assert!(passed(&["The total is seventy nine dollars.", "Seventy nine."]));
    assert!(
        passed(&["Is there anything else?", "No, thank you."]),
        "a question of courtesy has no answer that matters"
    );
}

#[test]
fn gate_counts_answers_numbers_denials_and_new_words() {
    for text in [
        "My name is Okafor.",
        "The parcel is late.",
        "It's 4417.",
        "7",
        "Twelve.",
        "No, the first bill.",
        "I want to cancel.",
    ] {
        assert!(!passed(&[NEWS, text]), "{text}");
    }
    for answer in ["Yes.", "No.", "okay", "the second bill"] {
        assert!(!passed(&[NEWS, "Do you want the refund for the second bill?", answer]), "{answer}");
    }
    assert!(!passed(&["turn 3 of the call", "turn 4 of the call"]), "a new number");
    assert!(!passed(&["Okay."]), "the first turn of a call");
    assert!(!passed(&[NEWS, &"okay ".repeat(25)]), "a long turn");
}

#[test]
fn gate_counts_turns_in_other_languages() {
    for text in ["Ja, genau.", "Mañana por la tarde.", "好的，谢谢。", "わかりました。"] {
        assert!(!passed(&[NEWS, text]), "{text}");
    }
}

#[test]
fn newness_depends_on_the_nearest_turns_only() {
    let mut turns = vec![NEWS];
    turns.extend(["We looked at the server room."; BEFORE]);
    turns.push("The second bill.");
    assert!(!passed(&turns), "said too long ago");
    turns.remove(1);
    assert!(passed(&turns));
}

#[test]
fn empty_turn_is_accepted() {
    for text in ["", "...", "?"] {
        let _ = passed(&[NEWS, text]);
        let _ = passed(&[text, "okay"]);
    }
}

#[test]
fn gate_is_on_unless_it_is_switched_off_and_never_for_computed_figures() {
    let given = |source| Settings::of_folder("x", &Folder::new([("analysis.toml", source)])).expect("settings");
    let none = PartialSettings::default();
    assert!(Settings::merged("x", &none, &none).gate);
    assert!(!Settings::merged("x", &given("gate = false"), &none).gate);
    assert!(Settings::merged("x", &given("gate = false"), &given("gate = true")).gate);
    let settings = Settings::merged("x", &given("computed = \"stats\""), &given("gate = true"));
    assert!(!settings.gate);
    assert_eq!(given("gate = true").misplaced(&settings).map(|(key, _)| key), Some("gate"));
}

#[test]
fn turn_is_never_more_likely_to_add_nothing_than_without_the_turns_before() {
    let said =
        [NEWS, "Do you want the refund?", "Seventy nine.", "Okay, thank you.", "No, the second bill, 79.", "7 7 7 8 9"];
    for text in said {
        for before in said {
            let (most, is) = (sum(features::of(text, None)), sum(features::of(text, Some(&[before]))));
            assert!(is <= most, "{text} after {before}: {is} of {most}");
        }
    }
}
