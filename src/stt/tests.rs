//! Tests of all dialects: fixtures, listing, and that no frame can do harm.

mod channels;
mod lenient;
mod surrogates;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

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

/// One event on one line, as short as is readable.
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
fn a_cut_anywhere_loses_and_doubles_nothing() {
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

/// All events of `frames`, the vendor's errors included, one short line each.
fn said(decoder: &mut dyn Decoder, frames: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    for frame in frames {
        let _ = decoder.decode(frame, &mut out);
    }
    decoder.finish(&mut out);
    out.iter().map(line).collect()
}

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

/// The envelopes that SDKs, webhooks and brokers put around a frame.
fn envelopes(frame: &str) -> Vec<String> {
    let text = serde_json::Value::String(frame.to_owned());
    vec![
        format!(r#"{{"data":{frame}}}"#),
        format!(r#"{{"message":{frame}}}"#),
        format!(r#"{{"payload":{frame},"timestamp":1790221526,"id":"e-1"}}"#),
        format!(r#"{{"type":"message","data":{text}}}"#),
        format!(r#"{{"event":"stt.message","payload":{{"session":{{"id":"s-1"}},"result":{frame}}}}}"#),
        format!(r#"{{"detail":{{"body":{text}}}}}"#),
        format!(r#"{{"TranscriptResultStream":{frame}}}"#),
        format!("[{frame}]"),
        format!("Path:message\r\nX-RequestId:1\r\n\r\n{frame}"),
    ]
}

#[test]
fn frames_in_envelopes_say_the_same_as_bare_ones() {
    for (dialect, name, frames) in ordinary().filter(|(dialect, ..)| dialect.splits()) {
        // The frames that the dialect knows, in order. Errors in envelopes are not errors of the stream.
        let mut bare = dialect.open();
        let known: Vec<String> = frames
            .into_iter()
            .filter(|frame| {
                let mut events = Vec::new();
                let result = bare.decode(frame, &mut events);
                let end = events.iter().any(|event| matches!(event, SttEvent::End { .. }));
                let own = wire::own(frame).is_ok_and(|event| event.is_some());
                !own && (end || Fit::of(&result, &events, bare.holding()).is_known())
            })
            .collect();
        assert!(!known.is_empty());
        let expected = said(&mut *dialect.open(), &known);
        for kind in 0..envelopes("{}").len() {
            let wrapped: Vec<String> = known.iter().map(|frame| envelopes(frame).swap_remove(kind)).collect();
            let context = format!("{}/{name} as {}", dialect.name(), envelopes("…")[kind]);
            assert_eq!(said(&mut *dialect.open(), &wrapped), expected, "{context}");
        }
    }
}

#[test]
fn frames_of_ours_in_envelopes_are_the_vendors_and_end_nothing() {
    for dialect in DIALECTS {
        for own in [r#"{"type":"end","scope":"call"}"#, r#"{"type":"meta","meta":{"a":1}}"#] {
            for frame in envelopes(own).into_iter().filter(|frame| frame.starts_with('{')) {
                let mut out = Vec::new();
                let _ = dialect.open().decode(&frame, &mut out);
                let ours = |event: &SttEvent| matches!(event, SttEvent::End { .. } | SttEvent::Meta(_));
                assert!(!out.iter().any(ours), "{}: {frame}", dialect.name());
            }
        }
    }
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
fn errors_of_add_ons_are_no_errors_of_the_vendor() {
    for (dialect, frame) in [
        (
            "assemblyai",
            r#"{"type":"LLMGatewayResponse","turn_order":0,"error":{"code":429,"message":"x"},"data":null}"#,
        ),
        ("assemblyai", r#"{"type":"LlmGatewayResponse","turn_order":0,"data":{"error":{"message":"x"}}}"#),
        ("assemblyai", r#"{"type":"Warning","warning_code":1,"warning":"x","error":"x"}"#),
        ("assemblyai", r#"{"type":"SpeakerSummary","data":{"error":"x","error_code":500}}"#),
        ("deepgram", r#"{"type":"Warning","description":"x","error":{"type":"Error","description":"x"}}"#),
        ("deepgram", r#"{"type":"Sentiment","error":{"type":"Error","code":"x"}}"#),
        ("deepgram", r#"{"type":"ConfigureFailure","error":"x"}"#),
        ("deepgram_flux", r#"{"type":"Warning","code":"x","description":"x"}"#),
        ("deepgram_flux", r#"{"type":"ConfigureFailure","error":{"type":"Error","code":"x"}}"#),
        (
            "openai_realtime",
            r#"{"type":"response.done","response":{"status":"failed","status_details":{"error":{"code":"x"}}}}"#,
        ),
        ("openai_realtime", r#"{"type":"mcp_list_tools.failed","item_id":"i","error":{"code":"x"}}"#),
        ("speechmatics", r#"{"message":"Warning","type":"x","reason":"x"}"#),
        ("speechmatics", r#"{"message":"AddTranslation","language":"de","error":{"message":"Error","type":"x"}}"#),
        ("speechmatics_agent", r#"{"message":"Warning","type":"x","reason":"x"}"#),
        ("speechmatics_agent", r#"{"message":"SmartTurnResult","error":{"message":"Error","type":"x"}}"#),
        ("gladia", r#"{"type":"translation","error":{"status_code":500,"message":"x"},"data":null}"#),
        ("gladia", r#"{"type":"sentiment_analysis","error":{"code":1,"message":"x"},"data":null}"#),
        ("gladia", r#"{"type":"named_entity_recognition","error":{"message":"x"},"data":{"results":null}}"#),
        ("gladia", r#"{"type":"post_summarization","error":{"message":"x"},"data":null}"#),
        ("gladia", r#"{"type":"post_chapterization","error":{"message":"x"},"data":null}"#),
        ("gladia", r#"{"type":"summarization","error":{"message":"x"},"data":null}"#),
        ("elevenlabs", r#"{"message_type":"warning","error":"x"}"#),
        ("elevenlabs", r#"{"message_type":"committed_transcript_entities","entities":null,"error":"x"}"#),
        ("elevenlabs", r#"{"message_type":"entities_updated","entities":[],"error":"x"}"#),
        ("soniox", r#"{"tokens":[],"final_audio_proc_ms":1,"translation":{"error_code":500,"error_message":"x"}}"#),
        ("google", r#"{"results":[],"adaptation":{"error":{"code":3,"message":"x"}}}"#),
        ("google", r#"{"summary":{"error":{"code":3,"message":"x"}}}"#),
        ("aws", r#"{"Transcript":{"Results":[]},"Sentiment":{"InternalFailureException":{"Message":"x"}}}"#),
        ("aws", r#"{"Insight":{"Message":"x"}}"#),
        (
            "aws_contact_lens",
            r#"{"EventType":"SEGMENTS","Segments":[{"PostContactSummary":{"Status":"FAILED","FailureCode":"x"}}]}"#,
        ),
        ("aws_contact_lens", r#"{"CategoryEvent":{"MatchedCategories":[],"Error":{"Message":"x"}}}"#),
        (
            "azure",
            r#"{"RecognitionStatus":"Success","DisplayText":"","Translation":{"TranslationStatus":"Error","FailureReason":"x"}}"#,
        ),
        ("gemini_live", r#"{"serverContent":{"groundingMetadata":{"error":{"code":500,"message":"x"}}}}"#),
        ("gemini_live", r#"{"toolCall":{"error":{"code":500,"message":"x"}}}"#),
        ("twilio", r#"{"type":"info","error":{"type":"error","description":"x"}}"#),
        ("recall", r#"{"event":"bot.fatal","data":{"data":{"code":"fatal","sub_code":"x"},"error":"x"}}"#),
        ("recall", r#"{"event":"recording.failed","data":{"data":{"code":"failed","sub_code":"x"}}}"#),
        ("recall", r#"{"event":"participant_events.join","data":{"error":"x"}}"#),
        ("zoom", r#"{"msg_type":6,"event":{"event_type":3,"error":{"status_code":5,"reason":"x"}}}"#),
    ] {
        let dialect = super::dialect(dialect).expect("dialect");
        let (mut decoder, mut out) = (dialect.open(), Vec::new());
        decoder.decode(frame, &mut out).expect("decodes");
        let error = out.iter().any(|event| matches!(event, SttEvent::VendorError { .. }));
        assert!(!error, "{}: {frame}: {out:?}", dialect.name());
    }
}

#[test]
fn speech_beside_an_error_is_kept() {
    for (dialect, frame) in [
        (
            "google",
            r#"{"results":[{"alternatives":[{"transcript":"Still here."}],"isFinal":true}],"error":{"code":11,"message":"x"}}"#,
        ),
        (
            "soniox",
            r#"{"tokens":[{"text":"Still here.","start_ms":1,"end_ms":9,"is_final":true},{"text":"<end>","is_final":true}],"error_code":408,"error_message":"x"}"#,
        ),
    ] {
        let mut out = Vec::new();
        super::dialect(dialect).expect("dialect").open().decode(frame, &mut out).expect("decodes");
        assert!(
            matches!(&out[..], [SttEvent::Final(turn), SttEvent::VendorError { .. }] if turn.text == "Still here."),
            "{out:?}"
        );
    }
}

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
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn mutated_frames_do_no_harm(
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
    fn frames_that_are_no_messages_do_no_harm(frame in ".{0,200}", which in any::<prop::sample::Index>()) {
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
