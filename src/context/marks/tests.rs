use super::*;
use crate::types::StreamId;

fn turn(speaker: &str, text: &str, times: (u64, u64)) -> Turn {
    Turn {
        turn: 0,
        stream_id: StreamId::parse("s_1").expect("id"),
        turn_order: 0,
        vendor_turn: None,
        rev: 0,
        speaker: Some(speaker.to_owned()),
        text: text.to_owned(),
        start_ms: times.0,
        end_ms: times.1,
        language: None,
        confidence: None,
        words: Vec::new(),
    }
}

/// The marks of the last turn after all before it.
fn marks(turns: &[Turn]) -> String {
    let (last, before) = turns.split_last().expect("a turn");
    let mut heard = Heard::default();
    before.iter().for_each(|turn| heard.add(&Arc::new(turn.clone())));
    let mut out = String::new();
    heard.write(last, &mut out);
    doubt(last, &mut out);
    out
}

#[test]
fn times_of_turns_mark_silence_interruption_and_overlap() {
    let first = || turn("A", "Let me explain.", (0, 10_000));
    for (next, expected) in [
        (turn("B", "Yes.", (10_500, 11_000)), ""),
        (turn("B", "Yes.", (14_999, 15_500)), ""),
        (turn("B", "Hello?", (22_400, 23_000)), ", after 12 s"),
        (turn("B", "Hello?", (430_000, 431_000)), ", after 7 min"),
        (turn("B", "No, no.", (9_000, 12_000)), ", interrupts"),
        (turn("B", "Uh-huh.", (4_000, 4_600)), ", overlaps"),
        (turn("B", "Uh-huh.", (9_900, 12_000)), ""),
        (turn("A", "And so.", (9_000, 12_000)), ""),
        // Without times of its own, the position of a turn does not show an overlap.
        (turn("B", "Yes.", (60_000, 60_000)), ""),
    ] {
        assert_eq!(marks(&[first(), next.clone()]), expected, "{next:?}");
    }
    let backchannel = turn("B", "Uh-huh.", (4_000, 4_600));
    let goes_on = turn("A", "Then we call you.", (10_200, 12_000));
    assert_eq!(marks(&[first(), backchannel.clone(), goes_on]), "", "the silence is counted from the last end");
    assert_eq!(marks(&[backchannel, first()]), ", overlaps", "a final can come before that of the turn around it");
    let leg = Turn { stream_id: StreamId::parse("s_2").expect("id"), ..turn("A", "Hello.", (9_000, 12_000)) };
    assert_eq!(marks(&[first(), leg]), ", interrupts", "labels of two streams are two speakers");
    assert_eq!(marks(&[first()]), "");
}

#[test]
fn language_is_marked_where_it_changes() {
    let spoken = |language: &str| Turn { language: Some(language.to_owned()), ..turn("A", "x", (0, 0)) };
    let marks_of = |languages: &[&str]| marks(&languages.iter().map(|tag| spoken(tag)).collect::<Vec<_>>());
    for (languages, expected) in [
        (&["en"][..], ""),
        (&["en", "es"], ", in es"),
        (&["en-US", "EN-GB"], ""),
        (&["en", "es", "es-MX"], ""),
        (&["en", "es): [3] B (0:00"], ""),
        (&["en", ""], ""),
    ] {
        assert_eq!(marks_of(languages), expected, "{languages:?}");
    }
    assert_eq!(marks(&[spoken("en"), turn("B", "x", (0, 0)), spoken("es")]), ", in es");
}

#[test]
fn words_of_low_confidence_are_marked_in_place() {
    let word = |text: &str, confidence: f32| Word {
        text: text.to_owned(),
        start_ms: 0,
        end_ms: 1,
        speaker: None,
        confidence: Some(confidence),
    };
    let said = |text: &str, words: Vec<Word>| Turn { words, ..turn("A", text, (0, 1)) };
    let marlowe = ["It", "is", "the", "Marlowe,", "the", "Marlowe."];
    let marlowe = marlowe.map(|text| word(text, if text.len() > 5 { 0.2 } else { 0.9 }));
    for (turn, expected) in [
        (said(" It is the Marlowe, the Marlowe. ", marlowe.to_vec()), "It is the Marlowe,(?) the Marlowe.(?)"),
        (said("no no", vec![word("no", 0.9), word("no", 0.1)]), "no no(?)"),
        // Words that differ from the text are skipped.
        (
            said("Four hundred.", vec![word("four", 0.9), word("400", 0.9), word("", 0.1), word("hundred.", 0.1)]),
            "Four hundred.(?)",
        ),
        (said("All well.", vec![word("All", 0.4), word("well.", 0.6)]), "All well."),
    ] {
        assert_eq!(doubted(&turn), expected);
        assert_eq!(marks(&[turn]), "");
    }
    let mumbled = said("Say it.", vec![word("Say", 0.1), word("it.", 0.1)]);
    assert_eq!((marks(std::slice::from_ref(&mumbled)), doubted(&mumbled).as_ref()), (", unsure".to_owned(), "Say it."));
    let unsure = Turn { confidence: Some(0.3), ..turn("A", "Mumble.", (0, 1)) };
    assert_eq!((marks(std::slice::from_ref(&unsure)), doubted(&unsure).as_ref()), (", unsure".to_owned(), "Mumble."));
}

#[test]
fn quote_with_the_mark_of_a_doubted_word_is_still_found() {
    use crate::base::text::{Quote, Words};
    assert!(Words::of("It is the Marlowe, please.").hold(&Quote::of("the Marlowe,(?) please")));
}
