use super::*;

fn decode(frame: &str) -> Result<Vec<SttEvent>, String> {
    let mut out = Vec::new();
    AssemblyAi.open().decode(frame, &mut out).map_err(|error| format!("{}: {}", error.code, error.message))?;
    Ok(out)
}

fn turn(fields: &str) -> String {
    format!(
        r#"{{"turn_order":4,"turn_is_formatted":false,"end_of_turn":true,"transcript":"hello there","end_of_turn_confidence":0.5,
        "words":[{{"start":100,"end":300,"text":"hello","confidence":0.9,"word_is_final":true,"speaker":"B"}},
                 {{"start":320,"end":310,"text":"there","confidence":1.2,"word_is_final":true,"speaker":null}}]{fields},"type":"Turn"}}"#
    )
}

fn the_final(frame: &str) -> Final {
    match decode(frame).expect("decodes").pop() {
        Some(SttEvent::Final(turn)) => *turn,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_final_keeps_labels_and_words_verbatim() {
    let turn = the_final(&turn(r#","speaker_label":"UNKNOWN","language_code":"en""#));
    assert_eq!(turn.key, TurnKey::Vendor("4".to_owned()));
    assert_eq!((turn.formatted, turn.text.as_str()), (false, "hello there"));
    assert_eq!((turn.speaker.as_deref(), turn.language.as_deref()), (Some("UNKNOWN"), Some("en")));
    assert_eq!((turn.start_ms, turn.end_ms), (Some(100), Some(320)));
    assert_eq!(turn.words[0].speaker.as_deref(), Some("B"));
    assert_eq!((turn.words[1].speaker.as_deref(), turn.words[1].confidence), (None, Some(1.0)));
}

#[test]
fn what_pydantic_accepts_is_accepted() {
    let turn = the_final(
        r#"{"type":"Turn","turn_order":"7","turn_is_formatted":"yes","end_of_turn":1,"transcript":"","end_of_turn_confidence":"1",
        "words":[{"start":"-5","end":12.0,"text":"a","confidence":"0.25","word_is_final":"on"}],"speaker_label":null}"#,
    );
    assert_eq!((turn.key, turn.formatted), (TurnKey::Vendor("7".to_owned()), true));
    assert_eq!((turn.start_ms, turn.end_ms, turn.words[0].confidence), (Some(0), Some(12), Some(0.25)));
}

#[test]
fn optional_fields_may_be_missing() {
    let turn = the_final(r#"{"type":"Turn","turn_order":0,"end_of_turn":true,"transcript":"x"}"#);
    assert_eq!((turn.start_ms, turn.words.len(), turn.formatted), (None, 0, false));
}

#[test]
fn partials_show_words_that_are_not_final_yet() {
    let partial = |transcript: &str, words: &[&str]| {
        let words: Vec<_> = words
            .iter()
            .map(|text| serde_json::json!({"start":0,"end":1,"text":text,"confidence":1,"word_is_final":false}))
            .collect();
        let frame = serde_json::json!({"type":"Turn","turn_order":0,"turn_is_formatted":false,"end_of_turn":false,
            "transcript":transcript,"end_of_turn_confidence":0,"words":words});
        match decode(&frame.to_string()).expect("decodes").pop() {
            Some(SttEvent::Partial { text, .. }) => text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(partial("hello", &["hello", "this"]), "hello this");
    assert_eq!(partial("", &["hello"]), "hello");
    assert_eq!(partial("Harbor Point", &["Harbor", "Point"]), "Harbor Point");
    assert_eq!(partial("你好世界", &["你好", "世界"]), "你好世界");
    assert_eq!(partial("all of it", &[]), "all of it");
}

#[test]
fn revisions_come_one_by_one() {
    let events = decode(
        r#"{"type":"SpeakerRevision","revisions":[{"turn_order":1,"speaker_label":"B","words":[{"start":1,"end":2,"text":"x","confidence":1,"speaker":"A","word_is_final":true}]},{"turn_order":2}]}"#,
    )
    .expect("decodes");
    let [SttEvent::Revise(first), SttEvent::Revise(second)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&first.key, first.speaker.as_deref()), (&TurnKey::Vendor("1".to_owned()), Some("B")));
    assert_eq!(first.words[0].speaker.as_deref(), Some("A"));
    assert_eq!((second.speaker.as_deref(), second.words.len()), (None, 0));
    assert_eq!(decode(r#"{"type":"SpeakerRevision"}"#), Ok(vec![]));
}

#[test]
fn session_messages() {
    assert_eq!(
        decode(r#"{"type":"Begin","id":"s-1","expires_at":1,"configuration":{"model":"m"}}"#),
        Ok(vec![SttEvent::Begin { vendor_session: Some("s-1".to_owned()) }])
    );
    assert_eq!(
        decode(r#"{"type":"Termination","audio_duration_seconds":null}"#),
        Ok(vec![SttEvent::End { reason: Some("Termination".to_owned()), scope: EndScope::Stream }])
    );
    let error = |code: &str| SttEvent::VendorError { code: code.to_owned(), message: "no".to_owned() };
    assert_eq!(decode(r#"{"type":"Error","error_code":3008,"error":"no"}"#), Ok(vec![error("3008")]));
    assert_eq!(decode(r#"{"error":"no"}"#), Ok(vec![error("error")]));
    for silent in SILENT {
        assert_eq!(decode(&format!(r#"{{"type":"{silent}"}}"#)), Ok(vec![]));
    }
    assert_eq!(
        decode(r#"{"type":"end","scope":"call"}"#),
        Ok(vec![SttEvent::End { reason: None, scope: EndScope::Call }])
    );
    assert_eq!(
        decode(r#"{"type":"Novelty","Turn":"Turn"}"#),
        Ok(vec![SttEvent::Unknown { kind: "Novelty".to_owned() }])
    );
}

#[test]
fn frame_without_a_needed_field_is_refused_by_its_name() {
    for (frame, message) in [
        (turn("").replace("\"turn_order\":4,", ""), "bad_field: Turn.turn_order: required, but missing"),
        (
            turn("").replace("\"turn_order\":4,", "\"turn_order\":\"soon\","),
            "bad_field: Turn.turn_order: expected an integer, found \"soon\"",
        ),
        (
            turn("").replace("true,\"transcript\"", "2,\"transcript\""),
            "bad_field: Turn.end_of_turn: expected true or false, found 2",
        ),
        (
            r#"{"type":"Turn","turn_order":1,"end_of_turn":true,"words":[]}"#.to_owned(),
            "bad_field: Turn.transcript: required, but missing",
        ),
        (
            r#"{"type":null}"#.to_owned(),
            "bad_field: type: required, but missing; expected a message type such as \"Turn\"",
        ),
    ] {
        assert_eq!(decode(&frame), Err(message.to_owned()), "{frame}");
    }
}

#[test]
fn unreadable_part_loses_only_itself() {
    let decode = |frame: &str| {
        let mut out = Vec::new();
        let lost = AssemblyAi.open().decode(frame, &mut out).expect("decodes");
        (out, lost.into_iter().map(|error| error.message).collect::<Vec<_>>())
    };
    let (out, lost) = decode(&turn("").replace("320,\"end\"", "\"late\",\"end\"").replace("310", "{}"));
    let [SttEvent::Final(turn)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((turn.text.as_str(), turn.words.len(), turn.end_ms), ("hello there", 1, Some(300)));
    let expected = [
        "Turn.words[1].start: expected an integer >= 0, found \"late\"",
        "Turn.words[1].end: expected an integer >= 0, found an object",
    ];
    assert_eq!(lost, expected);
    let (out, lost) = decode(r#"{"type":"SpeakerRevision","revisions":[{},{"turn_order":2,"speaker_label":7}]}"#);
    let [SttEvent::Revise(revised)] = &out[..] else { panic!("{out:?}") };
    assert_eq!(revised.speaker.as_deref(), Some("7"));
    assert_eq!(lost, ["SpeakerRevision.revisions[0].turn_order: required, but missing"]);
    // A list with too many faults is dropped as a whole, in few steps.
    let words: Vec<_> = (0..5000).map(|_| serde_json::json!({"text": "x", "start": "late", "end": 1})).collect();
    let frame = serde_json::json!({"type":"Turn","turn_order":0,"end_of_turn":true,"transcript":"kept","words":words});
    let (out, lost) = decode(&frame.to_string());
    let [SttEvent::Final(turn)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((turn.text.as_str(), turn.words.len()), ("kept", 0));
    assert!(lost.len() < 70, "{}", lost.len());
}

#[test]
fn times_may_have_a_fraction_and_fields_that_nobody_needs_may_be_anything() {
    let turn = the_final(
        r#"{"type":"Turn","turn_order":0,"end_of_turn":true,"transcript":"x","words":[{"text":"x","start":160.4,"end":"420.6"}],
        "end_of_turn_confidence":{},"utterance":[],"speaker_confidence":"high"}"#,
    );
    assert_eq!((turn.start_ms, turn.end_ms), (Some(160), Some(421)));
    assert_eq!(decode(r#"{"type":"Begin","expires_at":{}}"#), Ok(vec![SttEvent::Begin { vendor_session: None }]));
    let words_alone = the_final(
        r#"{"type":"Turn","turn_order":0,"end_of_turn":true,"words":[{"text":"said","start":1,"end":2},{"text":"here"}]}"#,
    );
    assert_eq!((words_alone.text.as_str(), words_alone.words.len()), ("said here", 1));
}
