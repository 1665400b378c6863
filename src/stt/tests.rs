//! Tests of all dialects: fixtures, listing, and that no frame can do harm.

mod auto;
mod channels;
mod envelopes;
mod errors;
mod lenient;
mod mutated;
mod restarts;
mod surrogates;
mod voice;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::types::{Final, TurnKey, Word};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/stt")
}

fn fixtures() -> Vec<(&'static dyn Dialect, String, Vec<String>)> {
    let mut fixtures = Vec::new();
    for dialect in DIALECTS {
        for entry in std::fs::read_dir(golden().join(dialect.name())).expect("a folder of fixtures") {
            let path = entry.expect("entry").path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                let text = std::fs::read_to_string(&path).expect("fixture");
                let name = path.file_stem().expect("name").to_string_lossy().into_owned();
                fixtures.push((*dialect, name, text.lines().map(str::to_owned).collect()));
            }
        }
    }
    fixtures.sort_by_key(|(dialect, name, _)| (dialect.name(), name.clone()));
    fixtures
}

/// One event on one line, as short as possible.
fn line(event: &SttEvent) -> String {
    let key = |key: &TurnKey| match key {
        TurnKey::Order(order) => format!("#{order}"),
        TurnKey::Vendor(id) => format!("<{id}>"),
        TurnKey::Next | TurnKey::Held(_) | TurnKey::Ended(_) => "next".to_owned(),
    };
    let words = |words: &[Word]| {
        let mut text = String::new();
        for word in words {
            let _ = write!(text, "\n    {}..{} {:?}", word.start_ms, word.end_ms, word.text);
            word.speaker.iter().for_each(|speaker| text.push_str(&format!(" speaker={speaker}")));
            word.confidence.iter().for_each(|confidence| text.push_str(&format!(" confidence={confidence:.2}")));
        }
        text
    };
    match event {
        SttEvent::Final(turn) => format!(
            "final {} {:?} formatted={} speaker={:?} {:?}..{:?} language={:?} confidence={:?}{}",
            key(&turn.key),
            turn.text,
            turn.formatted,
            turn.speaker,
            turn.start_ms,
            turn.end_ms,
            turn.language,
            turn.confidence,
            words(&turn.words),
        ),
        SttEvent::Partial { key: turn, speaker, text } => format!("partial {} {text:?} speaker={speaker:?}", key(turn)),
        SttEvent::Revise(turn) => {
            format!("revise {} speaker={:?} text={:?}{}", key(&turn.key), turn.speaker, turn.text, words(&turn.words))
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn fixtures_decode_as_reviewed() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(golden());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (dialect, name, frames) in fixtures() {
        let mut decoder = dialect.open();
        let mut text = String::new();
        for (index, frame) in frames.iter().enumerate() {
            let mut out = Vec::new();
            let result = decoder.decode(frame, &mut out);
            let _ = writeln!(text, "frame {index}{}", if decoder.holding() { " (holding)" } else { "" });
            for event in &out {
                let _ = writeln!(text, "  {}", line(event));
            }
            match result {
                Ok(lost) => {
                    for error in lost {
                        let _ = writeln!(text, "  left out {}: {}", error.code, error.message);
                    }
                }
                Err(error) => {
                    assert!(out.is_empty());
                    let _ = writeln!(text, "  error {}: {}", error.code, error.message);
                }
            }
        }
        settings.set_snapshot_path(golden().join(dialect.name()));
        settings.bind(|| insta::assert_snapshot!(name.as_str(), text));
    }
}

#[test]
fn every_folder_is_a_dialect_and_every_dialect_has_fixtures() {
    let mut folders: Vec<String> = std::fs::read_dir(golden())
        .expect("fixtures")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    folders.sort();
    let mut names: Vec<&str> = DIALECTS.iter().map(|dialect| dialect.name()).collect();
    names.sort_unstable();
    assert_eq!(folders, names);
    for dialect in DIALECTS {
        let frames = |name: &str| golden().join(dialect.name()).join(name).is_file();
        assert!(frames("full.jsonl") && frames("unknown.jsonl"), "{}", dialect.name());
        assert!(std::ptr::eq(
            std::ptr::from_ref(*dialect).cast::<u8>(),
            std::ptr::from_ref(super::dialect(dialect.name()).expect("found")).cast::<u8>()
        ));
    }
    assert!(super::dialect("morse").is_none());
}

#[test]
fn every_source_file_is_listed() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stt");
    for entry in std::fs::read_dir(source).expect("source") {
        let name = entry.expect("entry").file_name().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(".rs") else { continue };
        if !["mod", "tests", "wire", "held", "envelope", "fit"].contains(&name) {
            assert!(super::dialect(name).is_some(), "src/stt/{name}.rs is no line of DIALECTS");
        }
    }
}

#[test]
fn examples_carry_a_final_turn() {
    for dialect in DIALECTS {
        let mut decoder = dialect.open();
        let mut out = Vec::new();
        decoder.decode(dialect.example(), &mut out).expect("the example decodes");
        decoder.finish(&mut out);
        assert!(
            out.iter().any(|event| matches!(event, SttEvent::Final(turn) if !turn.text.is_empty())),
            "{}",
            dialect.name()
        );
    }
}

#[test]
fn every_dialect_has_the_end_and_the_meta_frame() {
    for dialect in DIALECTS {
        let mut said = Vec::new();
        dialect.open().decode(r#"{"type":"meta","meta":{"team":"billing"}}"#, &mut said).expect("decodes");
        assert!(matches!(&said[..], [SttEvent::Meta(meta)] if meta["team"] == "billing"), "{}", dialect.name());
        let mut out = Vec::new();
        dialect.open().decode(r#"{"type":"end","reason":"hangup","scope":"call"}"#, &mut out).expect("decodes");
        assert!(matches!(out[..], [SttEvent::End { scope: crate::types::EndScope::Call, .. }]), "{}", dialect.name());
        let error = dialect.open().decode(r#"{"type":"end","scope":"all"}"#, &mut out).expect_err("a wrong scope");
        assert_eq!(error.message, "end.scope: expected \"stream\" or \"call\", found \"all\"", "{}", dialect.name());
    }
}

fn finals(decoder: &mut dyn Decoder, frames: &[String]) -> Vec<Final> {
    let mut out = Vec::new();
    for frame in frames {
        let _ = decoder.decode(frame, &mut out);
    }
    out.into_iter().filter_map(the_final).collect()
}

fn the_final(event: SttEvent) -> Option<Final> {
    match event {
        SttEvent::Final(turn) => Some(*turn),
        _ => None,
    }
}

/// A turn without its times, which a decoder may have from frames that are not sent again.
type Essence = (TurnKey, String, Vec<(String, Option<String>)>);

fn essence(turns: &[Final]) -> Vec<Essence> {
    turns
        .iter()
        .map(|turn| {
            let words = turn.words.iter().map(|word| (word.text.clone(), word.speaker.clone())).collect();
            (turn.key.clone(), turn.text.clone(), words)
        })
        .collect()
}

#[test]
fn reconnect_at_any_frame_loses_and_duplicates_nothing() {
    for (dialect, name, frames) in fixtures() {
        let to_the_end = |frames: &[String]| {
            let mut decoder = dialect.open();
            let mut turns = finals(&mut *decoder, frames);
            let mut rest = Vec::new();
            decoder.finish(&mut rest);
            turns.extend(rest.into_iter().filter_map(the_final));
            turns
        };
        let whole = to_the_end(&frames);
        for cut in 0..=frames.len() {
            let mut first = dialect.open();
            let (mut acked, mut kept, mut beyond) = (0, Vec::new(), Vec::new());
            for (index, frame) in frames[..cut].iter().enumerate() {
                beyond.extend(finals(&mut *first, std::slice::from_ref(frame)));
                if !first.holding() {
                    acked = index + 1;
                    kept.append(&mut beyond);
                }
            }
            let again = to_the_end(&frames[acked..]);
            let context = format!("{}/{name}, cut after {cut}, resent from {acked}", dialect.name());
            assert!(essence(&again).starts_with(&essence(&beyond)), "{context}");
            kept.extend(again);
            assert_eq!(essence(&kept), essence(&whole), "{context}");
        }
    }
}

/// Fixtures with a dialect's ordinary messages, without those that are wrong or unknown.
fn ordinary() -> impl Iterator<Item = (&'static dyn Dialect, String, Vec<String>)> {
    fixtures().into_iter().filter(|(dialect, name, _)| name != "unknown" && !dialect.picks())
}

/// All events of `frames`, including the vendor's errors, on one short line each.
fn said(decoder: &mut dyn Decoder, frames: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    for frame in frames {
        let _ = decoder.decode(frame, &mut out);
    }
    decoder.finish(&mut out);
    out.iter().map(line).collect()
}

#[test]
fn a_frame_that_is_not_known_changes_nothing() {
    for (dialect, name, frames) in ordinary() {
        let unknown = std::fs::read_to_string(golden().join(dialect.name()).join("unknown.jsonl")).expect("fixture");
        let unknown = unknown.lines().next().expect("a line").to_owned();
        let between: Vec<String> = frames.iter().flat_map(|frame| [unknown.clone(), frame.clone()]).collect();
        let mut with = said(&mut *dialect.open(), &between);
        with.retain(|line| !line.starts_with("Unknown"));
        let mut without = said(&mut *dialect.open(), &frames);
        without.retain(|line| !line.starts_with("Unknown"));
        assert_eq!(with, without, "{}/{name}", dialect.name());
    }
}

#[test]
fn fields_that_sdks_write_in_other_ways_are_read_without_an_error() {
    for (name, frame, text) in [
        (
            "aws_contact_lens",
            r#"{"EventType":"SEGMENTS","Segments":[null,{"Transcript":null},{"Transcript":{"Id":"t","Content":"Hi."}}]}"#,
            Some("Hi."),
        ),
        (
            "google",
            r#"{"results":[{"alternatives":[{"transcript":"Hi.","words":[{"word":"Hi.","startOffset":{},"endOffset":{"nanos":5}}]}],"isFinal":true}]}"#,
            Some("Hi."),
        ),
        (
            "twilio",
            r#"{"TranscriptionEvent":"transcription-content","Final":"False","TranscriptionData":{"transcript":"H"}}"#,
            None,
        ),
        (
            "twilio",
            r#"{"TranscriptionEvent":"transcription-content","Final":0,"TranscriptionData":{"transcript":"H"}}"#,
            None,
        ),
        (
            "twilio",
            r#"{"TranscriptionEvent":"transcription-content","Final":1,"TranscriptionData":{"transcript":4}}"#,
            Some("4"),
        ),
    ] {
        let mut out = Vec::new();
        let lost = dialect(name).expect("dialect").open().decode(frame, &mut out);
        assert_eq!(lost, Ok(Vec::new()), "{frame}");
        let finals: Vec<_> = out
            .iter()
            .filter_map(|event| match event {
                SttEvent::Final(turn) => Some(turn.text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(finals, text.into_iter().collect::<Vec<_>>(), "{frame}");
    }
}
