//! A lone surrogate escape anywhere in a frame costs one character, in every dialect.

use serde_json::Value;

use super::{fixtures, line};
use crate::stt::Dialect;
use crate::stt::fit::DISCRIMINATORS;

/// A character that no fixture contains and that JSON writes unescaped.
const MARK: char = '\u{e000}';

/// Appends the mark to every string in `value`, except at `kept` keys, by which a dialect recognises its frames, and
/// except strings that hold a number or a time.
fn mark(value: &mut Value, kept: &[&str]) {
    match value {
        Value::String(text) if text.starts_with(|first: char| first.is_ascii_digit()) => {}
        Value::String(text) => text.push(MARK),
        Value::Array(items) => items.iter_mut().for_each(|item| mark(item, kept)),
        Value::Object(fields) => {
            fields.iter_mut().filter(|(key, _)| !kept.contains(&key.as_str())).for_each(|(_, item)| mark(item, kept));
        }
        _ => {}
    }
}

/// The output of a dialect for `frames`, with the mark written as `escape`.
fn decoded(dialect: &dyn Dialect, frames: &[String], escape: &str) -> Vec<String> {
    let mut decoder = dialect.open();
    let mut said = Vec::new();
    for frame in frames {
        let mut out = Vec::new();
        match decoder.decode(&frame.replace(MARK, escape), &mut out) {
            Ok(lost) => {
                said.extend(out.iter().map(line));
                said.extend(lost.into_iter().map(|error| error.message));
            }
            Err(error) => said.push(error.message),
        }
    }
    let mut out = Vec::new();
    decoder.finish(&mut out);
    said.extend(out.iter().map(line));
    said
}

#[test]
fn lone_surrogate_in_any_string_counts_as_the_replacement_character() {
    let more = ["message", "Type", "attaches_to", "translation_status", "trigger", "RecognitionStatus", "reason"];
    let kept = [&DISCRIMINATORS[..], &more].concat();
    for (dialect, name, frames) in fixtures() {
        let marked: Vec<String> = frames
            .iter()
            .filter_map(|frame| serde_json::from_str::<Value>(frame).ok())
            .map(|mut frame| {
                mark(&mut frame, &kept);
                frame.to_string()
            })
            .collect();
        let expected = decoded(dialect, &marked, "\u{fffd}");
        if name == "full" {
            let kept = expected.iter().any(|line| line.starts_with("final") && line.contains('\u{fffd}'));
            assert!(kept, "{}: no turn holds the character\n{expected:#?}", dialect.name());
        }
        for escape in [r"\ud83d", r"\uDE00", r"\udBfF"] {
            assert_eq!(decoded(dialect, &marked, escape), expected, "{}/{name} with {escape}", dialect.name());
        }
    }
}

#[test]
fn a_lone_surrogate_in_json_within_a_string_costs_one_character() {
    for (name, frame, text, start_ms) in [
        (
            "twilio",
            r#"{"TranscriptionEvent":"transcription-content","Final":"true","TranscriptionData":"{\"transcript\":\"Hi \\ud83d there\"}"}"#,
            "Hi \u{fffd} there",
            None,
        ),
        (
            "azure",
            r#"{"reason":"RecognizedSpeech","text":"Hi.","json":"{\"RecognitionStatus\":\"Success\",\"DisplayText\":\"Hi \\ud83d.\",\"Offset\":1600000,\"Duration\":9000000}"}"#,
            "Hi.",
            Some(160),
        ),
        (
            "aws",
            r#"{"data":"{\"Transcript\":{\"Results\":[{\"IsPartial\":false,\"StartTime\":0.2,\"Alternatives\":[{\"Transcript\":\"Hi \\udc00.\"}]}]}}"}"#,
            "Hi \u{fffd}.",
            Some(200),
        ),
    ] {
        let mut out = Vec::new();
        let lost = crate::stt::dialect(name).expect("dialect").open().decode(frame, &mut out);
        assert_eq!(lost, Ok(Vec::new()), "{name}");
        let found: Vec<_> = out
            .iter()
            .map(|event| match event {
                crate::types::SttEvent::Final(turn) => (turn.text.as_str(), turn.start_ms),
                other => panic!("{name}: {other:?}"),
            })
            .collect();
        assert_eq!(found, [(text, start_ms)], "{name}");
    }
}
