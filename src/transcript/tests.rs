//! Tests of all formats: fixtures, detection, that nothing is lost, and that no file can do harm.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::base::testing::kept;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/transcripts")
}

struct Fixture {
    format: &'static dyn Format,
    /// Path of the fixture, such as `vtt/full.vtt`.
    name: String,
    bytes: Vec<u8>,
}

fn fixtures() -> Vec<Fixture> {
    let mut fixtures = Vec::new();
    for format in FORMATS {
        for entry in std::fs::read_dir(golden().join(format.name())).expect("a folder of fixtures") {
            let path = entry.expect("entry").path();
            if path.extension().is_some_and(|extension| extension != "snap") {
                let file = path.file_name().expect("name").to_string_lossy().into_owned();
                let bytes = std::fs::read(&path).expect("fixture");
                fixtures.push(Fixture { format: *format, name: format!("{}/{file}", format.name()), bytes });
            }
        }
    }
    fixtures.sort_by(|one, other| one.name.cmp(&other.name));
    fixtures
}

#[test]
fn fixtures_read_as_reviewed() {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for Fixture { format, name, bytes } in fixtures() {
        let (_, transcript) = read(&bytes, Some(format)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut text = format!("times {}\n", transcript.times.as_str());
        transcript.title.iter().for_each(|title| text.push_str(&format!("title {title:?}\n")));
        for LeftOut { line, message } in &transcript.left_out {
            let _ = writeln!(text, "left out, line {line}: {message}");
        }
        for Turn { line, speaker, text: said, start_ms, end_ms } in &transcript.turns {
            let speaker = speaker.as_deref().map_or("-".to_owned(), |speaker| format!("{speaker:?}"));
            let _ = writeln!(text, "line {line}: {start_ms}..{end_ms} {speaker} {said:?}");
        }
        settings.set_snapshot_path(golden().join(format.name()));
        let file = name.rsplit('/').next().expect("a file").replace('.', "_");
        settings.bind(|| insta::assert_snapshot!(file, text));
    }
}

#[test]
fn every_folder_is_a_format_and_every_format_has_fixtures() {
    let folders = std::fs::read_dir(golden()).expect("fixtures").map(|entry| entry.expect("entry").file_name());
    let folders: BTreeSet<String> = folders.map(|name| name.to_string_lossy().into_owned()).collect();
    assert_eq!(folders, names().into_iter().map(str::to_owned).collect());
    let fixtures = fixtures();
    for format in FORMATS {
        assert!(
            fixtures.iter().filter(|fixture| fixture.format.name() == format.name()).count() >= 2,
            "{}",
            format.name()
        );
        assert_eq!(super::format(format.name()).expect("found").name(), format.name());
    }
    let error = super::format("vvt").map(Format::name).expect_err("unknown");
    assert_eq!(error, "no format \"vvt\"; there are: vtt, srt, zoom, teams, otter, text; did you mean \"vtt\"?");
}

#[test]
fn formats_are_detected() {
    for Fixture { format, name, bytes } in fixtures() {
        let expected = match name.as_str() {
            // Captions with names at their beginning are read in the same way, whichever product wrote them.
            "vtt/names.vtt" => Some("zoom"),
            // Only Otter names the speaker only when it changes, and nothing shows that the file is Otter's.
            "otter/subtitles.srt" | "teams/times.txt" => Some("srt"),
            // A text without any name could be in any format.
            "text/nameless.txt" => None,
            _ => Some(format.name()),
        };
        let found = read(&bytes, None);
        assert_eq!(found.as_ref().ok().map(|(format, _)| format.name()), expected, "{name}: {:?}", found.err());
    }
    let error = read(b"\n{\"a\": 1}", None).expect_err("no transcript");
    assert!(
        error.to_string().starts_with("line 2, column 1: not a known transcript format; there are: vtt (WebVTT"),
        "{error}"
    );
}

#[test]
fn file_without_speech_is_an_error() {
    for (name, text) in [
        ("vtt", "WEBVTT\n\nNOTE nothing\n\n00:01.000 --> 00:02.000\n"),
        ("srt", "1\n00:00:01,000 --> 00:00:02,000\n\n"),
        ("zoom", "[Ann] 10:00:00\n"),
        ("teams", "Ann   0:03\n"),
        ("otter", "Only a heading\n"),
        ("text", "\n"),
        ("text", "Ann:\n"),
    ] {
        let error = read(text.as_bytes(), Some(super::format(name).expect("format"))).expect_err(text);
        assert!(error.message.starts_with("it contains no speech; expected "), "{name}: {error}");
    }
}

#[test]
fn limits_of_cues_and_turns_are_named() {
    let cue = |index: usize| {
        format!("{:02}:{:02}.000 --> {:02}:{:02}.500\nx\n", index / 60, index % 60, index / 60, index % 60)
    };
    let cues = |count: usize| "WEBVTT\n\n".to_owned() + &(0..count).map(cue).collect::<String>();
    let (_, transcript) = read(cues(MAX_TURNS).as_bytes(), None).expect("as many as are allowed");
    assert!(transcript.turns.len() < MAX_TURNS, "they are merged");
    let error = read(cues(MAX_TURNS + 1).as_bytes(), None).expect_err("one more");
    assert_eq!((error.line, error.message.contains("transcript_turns")), (3 + 2 * MAX_TURNS, true), "{error}");
    let error = read("Ann: x\nBob: y\n".repeat(MAX_TURNS / 2 + 1).as_bytes(), None).expect_err("too many");
    assert_eq!((error.line, error.message.contains("transcript_turns")), (MAX_TURNS + 1, true), "{error}");
}

#[test]
fn hostile_files_are_read_or_refused() {
    let repeated = |part: &str, bytes: usize| part.repeat(bytes / part.len());
    for (name, text) in [
        ("vtt", format!("WEBVTT\n\n00:01.000 --> 00:02.000\n{}", repeated("<v ", 200_000))),
        ("vtt", format!("WEBVTT\n\n00:01.000 --> 00:02.000\n{}", repeated("<v a>b&", 200_000))),
        ("vtt", format!("WEBVTT\n\n{}", repeated("00:01.000 --> 00:02.000\n<v A>a b c\n", 400_000))),
        ("srt", format!("00:01 --> 00:02\n{}", repeated("- a\n", 400_000))),
        ("srt", repeated("1\n00:01 --> 00:02\na b c a b c a b c\n\n", 400_000)),
        ("zoom", format!("WEBVTT\n\n00:01.000 --> 00:02.000\n{}", repeated("A: ", 200_000))),
        ("otter", repeated("A  0:00\n", 400_000)),
        ("text", repeated("A: b\n\n", 200_000)),
        ("text", repeated("[0:00] ", 200_000)),
        ("text", repeated("((((", 200_000)),
        ("teams", format!("WEBVTT\n\n00:01.000 --> 00:02.000\n{}", repeated("{\"a\":[", 200_000))),
    ] {
        // Whatever the text is: reading ends, and every turn is valid.
        if let Ok((_, transcript)) = read(text.as_bytes(), Some(super::format(name).expect("format"))) {
            check(&transcript);
        }
    }
}

/// Checks that are valid for every transcript.
fn check(transcript: &Transcript) {
    for turn in &transcript.turns {
        assert!(turn.start_ms <= turn.end_ms && !turn.text.trim().is_empty() && turn.line > 0, "{turn:?}");
        assert!(turn.speaker.as_deref() != Some(""), "{turn:?}");
    }
}

/// Words of a text, without punctuation and white space.
fn words(text: &str) -> Vec<String> {
    crate::base::text::words(text).map(str::to_owned).collect()
}

fn all_words(transcript: &Transcript) -> BTreeSet<String> {
    let turns = transcript.turns.iter();
    turns
        .flat_map(|turn| words(&turn.text).into_iter().chain(words(turn.speaker.as_deref().unwrap_or_default())))
        .collect()
}

/// The letters of all turns and names, in order. Lines in a script without spaces are joined without one, so a word may
/// be found inside of another.
fn all_letters(transcript: &Transcript) -> String {
    let turns = transcript.turns.iter();
    let parts = turns.flat_map(|turn| [turn.speaker.as_deref().unwrap_or_default(), turn.text.as_str()]);
    parts.flat_map(str::chars).filter(|letter| !letter.is_whitespace()).collect()
}

/// A cue's text: plain words with marks that could be mistaken for markup.
fn said() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        8 => "[a-z]{1,6}",
        2 => "[A-Z][a-z]{0,5}",
        1 => "[0-9]{1,3}",
        1 => prop::sample::select(vec!["Ann:", "10:30:", "-", "- ", "https://x.example/y", "<b>so</b>", "5<6", "A&B", ">>", "[x]", "NOTE", "好的", "…", "\n", " \n "]).prop_map(str::to_owned),
    ];
    prop::collection::vec(word, 1..12).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..kept() })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), format in 0..FORMATS.len()) {
        if let Ok((_, transcript)) = read(&bytes, Some(FORMATS[format])) {
            check(&transcript);
        }
        let _ = read(&bytes, None);
    }

    #[test]
    fn mutated_fixtures_are_read_or_refused(
        fixture in 0usize..1000,
        format in 0..FORMATS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..12),
    ) {
        let fixtures = fixtures();
        let mut bytes = fixtures[fixture % fixtures.len()].bytes.clone();
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len().max(1));
            match kind {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 => bytes.insert(at.min(bytes.len()), byte),
                _ => bytes.truncate(at.max(10)),
            }
        }
        if let Ok((_, transcript)) = read(&bytes, Some(FORMATS[format])) {
            check(&transcript);
        }
        if let Ok((_, transcript)) = read(&bytes, None) {
            check(&transcript);
        }
    }

    /// Every word of a cue is in a turn, in its text or as its speaker.
    #[test]
    fn words_of_cues_are_in_turns(cues in prop::collection::vec((said(), 0u64..100_000, 0u64..5_000), 1..20)) {
        let time = |ms: u64, mark: char| format!("{:02}:{:02}:{:02}{mark}{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
        let file = |mark: char, ids: bool| -> String {
            let cue = |(index, (text, start, length)): (usize, &(String, u64, u64))| {
                let id = if ids { format!("{}\n", index + 1) } else { String::new() };
                format!("{id}{} --> {}\n{text}\n\n", time(*start, mark), time(start + length, mark))
            };
            cues.iter().enumerate().map(cue).collect()
        };
        let expected: BTreeSet<String> =
            cues.iter().flat_map(|(text, ..)| words(&text.replace("<b>", "").replace("</b>", ""))).collect();
        for (name, text) in [
            ("srt", file(',', true)),
            ("otter", file(',', true)),
            ("vtt", format!("WEBVTT\n\n{}", file('.', true))),
            ("zoom", format!("WEBVTT\n\n{}", file('.', true))),
            ("teams", format!("WEBVTT\n\n{}", file('.', true))),
        ] {
            let (_, transcript) = match read(text.as_bytes(), Some(super::format(name).expect("format"))) {
                Ok(read) => read,
                // Names alone are no speech.
                Err(_) if expected.iter().all(|word| !word.starts_with(char::is_lowercase)) => continue,
                Err(error) => panic!("{name}: {error}\n{text}"),
            };
            check(&transcript);
            let found = all_words(&transcript);
            // Each cue begins with a number after an empty line, so that a comment can only be a separate line.
            let letters = all_letters(&transcript);
            let mut lost: Vec<&String> =
                expected.difference(&found).filter(|word| !letters.contains(word.as_str())).collect();
            if !transcript.left_out.is_empty() {
                // A name without speech.
                lost.retain(|word| word.starts_with(char::is_lowercase));
            }
            prop_assert!(lost.is_empty(), "{name}: lost {lost:?}\n{text}\n{transcript:?}");
        }
    }

    #[test]
    fn words_of_text_are_in_turns(lines in prop::collection::vec(said(), 1..30)) {
        let text = lines.join("\n");
        if let Ok((_, transcript)) = read(text.as_bytes(), Some(&super::text::Text)) {
            check(&transcript);
            let found = all_words(&transcript);
            let names: BTreeSet<usize> = transcript.left_out.iter().map(|part| part.line).collect();
            let kept = text.lines().zip(1..).filter(|(_, line)| !names.contains(line));
            let letters = all_letters(&transcript);
            let is_lost = |word: &String| !found.contains(word) && !letters.contains(word.as_str());
            let lost: Vec<String> = kept.flat_map(|(line, _)| words(line)).filter(is_lost).collect();
            prop_assert!(lost.is_empty() || names.len() > 20, "lost {lost:?}\n{text}\n{transcript:?}");
        }
    }

    /// Turns that are written as frames are read back as the same turns.
    #[test]
    fn frames_say_what_the_turns_say(cues in prop::collection::vec(("\\PC{1,30}", 0u64..100_000), 1..10)) {
        let turns: Vec<Turn> = cues.iter().map(|(text, start)| Turn {
            line: 1, speaker: Some(text.clone()), text: text.clone(), start_ms: *start, end_ms: start + 5,
        }).collect();
        for ((at, frame), turn) in frames(&turns).zip(&turns) {
            let read: crate::protocol::ingest::Turn<'_> = serde_json::from_str(&frame).expect("a frame");
            prop_assert_eq!(read.text.as_ref(), turn.text.as_str());
            prop_assert_eq!((read.start_ms, read.end_ms), (Some(turn.start_ms), Some(turn.end_ms)));
            prop_assert_eq!(at.as_millis(), u128::from(turn.end_ms));
        }
    }
}
