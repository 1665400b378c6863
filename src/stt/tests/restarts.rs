//! A vendor's session that starts again behind one connection shows in the times of finals if no message names it.

use serde_json::{Value, json};

use super::*;

/// A final turn of a session that no message names, from `start` seconds on, in the vendor's own format. `number` is the
/// turn's number in its session, for vendors that number turns.
fn said(dialect: &str, text: &str, start: f64, number: u64) -> Vec<Value> {
    let (end, ms) = (start + 0.9, start * 1000.0);
    match dialect {
        "azure" => {
            vec![json!({"RecognitionStatus":"Success","DisplayText":text,"Offset":ms * 1e4,"Duration":9_000_000})]
        }
        "gladia" => vec![json!({"type":"transcript","data":{"id":format!("00-{number:08}"),"is_final":true,
            "utterance":{"start":start,"end":end,"text":text}}})],
        "elevenlabs" => vec![json!({"message_type":"committed_transcript_with_timestamps","text":text,
            "words":[{"text":text,"start":start,"end":end}]})],
        "recall" => vec![json!({"event":"transcript.data","data":{"data":{"words":[{"text":text,
            "start_timestamp":{"relative":start},"end_timestamp":{"relative":end}}],"participant":{"name":"Ana"}}}})],
        "deepgram_flux" => vec![json!({"type":"TurnInfo","event":"EndOfTurn","turn_index":number,"transcript":text,
            "words":[{"word":text,"start":start,"end":end}]})],
        "speechmatics_agent" => vec![json!({"message":"AddSegment","segments":[{"speaker_id":"S1","text":text,
            "metadata":{"start_time":start,"end_time":end}}]})],
        "aws_contact_lens" => vec![json!({"Segments":[{"Transcript":{"Id":format!("{text}-{number}"),"Content":text,
            "ParticipantRole":"AGENT","BeginOffsetMillis":ms,"EndOffsetMillis":ms + 900.0}}]})],
        "speechmatics" => vec![
            json!({"message":"AddTranscript","metadata":{"start_time":start,"end_time":end,"transcript":format!("{text} ")}}),
            json!({"message":"EndOfUtterance"}),
        ],
        "deepgram" => vec![json!({"type":"Results","start":start,"duration":0.9,"is_final":true,"speech_final":true,
            "channel":{"alternatives":[{"transcript":text}]}})],
        "soniox" => vec![json!({"tokens":[{"text":text,"start_ms":ms,"end_ms":ms + 900.0,"is_final":true},
            {"text":"<end>","is_final":true}]})],
        "google" => vec![json!({"results":[{"alternatives":[{"transcript":text}],"isFinal":true,
            "resultEndOffset":format!("{end}s")}]})],
        "aws" => vec![json!({"Transcript":{"Results":[{"ResultId":format!("{text}-{number}"),"StartTime":start,
            "EndTime":end,"IsPartial":false,"Alternatives":[{"Transcript":text}]}]}})],
        other => panic!("{other} has no times here"),
    }
}

/// Texts of the turns, and `|` where a new session begins.
fn told(decoder: &mut dyn Decoder, frames: &[Value]) -> Vec<String> {
    let mut out = Vec::new();
    for frame in frames {
        let lost = decoder.decode(&frame.to_string(), &mut out).expect("decodes");
        assert_eq!(lost, [], "{frame}");
    }
    decoder.finish(&mut out);
    let word = |event| match event {
        SttEvent::Final(turn) => Some(turn.text),
        SttEvent::Restarted | SttEvent::Begin { .. } => Some("|".to_owned()),
        _ => None,
    };
    out.into_iter().filter_map(word).collect()
}

const BY_TIMES: [&str; 12] = [
    "azure",
    "gladia",
    "elevenlabs",
    "recall",
    "deepgram_flux",
    "speechmatics_agent",
    "aws_contact_lens",
    "speechmatics",
    "deepgram",
    "soniox",
    "google",
    "aws",
];

#[test]
fn times_that_go_back_to_the_start_begin_a_session_on_every_dialect_with_times() {
    for name in BY_TIMES {
        let dialect = dialect(name).expect("dialect");
        let first = [said(name, "one", 0.2, 0), said(name, "two", 30.0, 1), said(name, "three", 61.0, 2)].concat();
        let second = [said(name, "four", 0.4, 0), said(name, "five", 12.0, 1)].concat();
        let mut heard = told(&mut *dialect.open(), &[first.clone(), second.clone()].concat());
        if name == "speechmatics_agent" {
            // Without an end of the turn, its segments are one turn.
            heard = heard.iter().flat_map(|text| text.split(' ').map(str::to_owned)).collect();
        }
        assert_eq!(heard, ["one", "two", "three", "|", "four", "five"], "{name}");
        // A new connection continues the same session: no new stream begins, and a repeated final belongs to that session.
        let again = [first.clone(), first[first.len() - 1..].to_vec()].concat();
        if dialect.names_turns() {
            assert!(!told(&mut *dialect.open(), &again).contains(&"|".to_owned()), "{name}");
        }
    }
}

#[test]
fn another_session_in_a_message_begins_one_although_an_earlier_one_had_a_begin_message() {
    for (name, frames) in [
        (
            "gladia",
            vec![
                json!({"type":"start_session","session_id":"a"}),
                json!({"type":"transcript","session_id":"a","data":{"id":"00-1","is_final":true,"utterance":{"text":"one"}}}),
                json!({"type":"transcript","session_id":"b","data":{"id":"00-1","is_final":true,"utterance":{"text":"two"}}}),
            ],
        ),
        (
            "aws_contact_lens",
            vec![
                json!({"EventType":"STARTED","ContactId":"a"}),
                json!({"EventType":"SEGMENTS","ContactId":"a","Segments":[{"Transcript":{"Id":"t","Content":"one"}}]}),
                json!({"EventType":"SEGMENTS","ContactId":"b","Segments":[{"Transcript":{"Id":"t","Content":"two"}}]}),
            ],
        ),
    ] {
        let mut decoder = dialect(name).expect("dialect").open();
        assert_eq!(told(&mut *decoder, &frames), ["|", "one", "|", "two"], "{name}");
    }
}
