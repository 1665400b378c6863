//! What vendors' voice detection says.

use super::*;

/// `+`: somebody begins to speak; `-`: nobody speaks, with the times if there are any.
fn voice(dialect: &str, frames: &[&str]) -> String {
    let mut decoder = crate::stt::dialect(dialect).expect("a dialect").open();
    let mut out = Vec::new();
    for frame in frames {
        decoder.decode(frame, &mut out).expect("decodes");
    }
    let sign = |event: &SttEvent| match event {
        SttEvent::SpeechStarted => "+".to_owned(),
        SttEvent::Silence { span: None } => "-".to_owned(),
        SttEvent::Silence { span: Some((from, to)) } => format!("-{from}..{to}"),
        _ => String::new(),
    };
    out.iter().map(sign).collect()
}

#[test]
fn voice_detection_of_each_vendor_is_events() {
    let rows: &[(&str, &[&str], &str)] = &[
        (
            "assemblyai",
            &[
                r#"{"type":"SpeechStarted","timestamp":80}"#,
                r#"{"type":"Silence","start_ms":12000,"end_ms":13000}"#,
                r#"{"type":"Silence"}"#,
                r#"{"type":"Silence","start_ms":"soon","end_ms":13000}"#,
            ],
            "+-12000..13000--",
        ),
        (
            "deepgram",
            &[
                r#"{"type":"SpeechStarted","channel":[0,1],"timestamp":0.1}"#,
                r#"{"type":"UtteranceEnd","channel":[0,1],"last_word_end":5.6}"#,
                r#"{"type":"UtteranceEnd","last_word_end":5.6}"#,
                r#"{"type":"UtteranceEnd","channel":[1,2],"last_word_end":5.6}"#,
            ],
            "+--",
        ),
        (
            "deepgram_flux",
            &[
                r#"{"type":"TurnInfo","event":"StartOfTurn","turn_index":0,"transcript":"Hello"}"#,
                r#"{"type":"TurnInfo","event":"Update","turn_index":0,"transcript":"Hello there"}"#,
            ],
            "+",
        ),
        (
            "openai_realtime",
            &[
                r#"{"type":"input_audio_buffer.speech_started","audio_start_ms":300,"item_id":"i"}"#,
                r#"{"type":"input_audio_buffer.speech_stopped","audio_end_ms":1900,"item_id":"i"}"#,
                r#"{"type":"input_audio_buffer.timeout_triggered","audio_start_ms":4000,"audio_end_ms":9000,"item_id":"j"}"#,
            ],
            "+--4000..9000",
        ),
        (
            "gladia",
            &[
                r#"{"type":"speech_start","data":{"time":1.2,"channel":0}}"#,
                r#"{"type":"speech_start","data":{"time":1.4,"channel":1}}"#,
                r#"{"type":"speech_end","data":{"time":2.0,"channel":0}}"#,
                r#"{"type":"speech_end","data":{"time":2.4,"channel":1}}"#,
                r#"{"type":"speech_end","data":{"time":2.5,"channel":4000000000}}"#,
            ],
            "++--",
        ),
        (
            "speechmatics",
            &[r#"{"message":"EndOfUtterance","metadata":{}}"#, r#"{"message":"EndOfUtterance","channel":"agent"}"#],
            "-",
        ),
        (
            "speechmatics_agent",
            &[
                r#"{"message":"SpeechStarted","metadata":{"start_time":0.2}}"#,
                r#"{"message":"SpeechEnded","metadata":{"start_time":2.7}}"#,
                r#"{"message":"SpeakerEnded","speaker_id":"S1"}"#,
                r#"{"message":"EndOfUtterance"}"#,
            ],
            "+--",
        ),
        (
            "google",
            &[
                r#"{"speechEventType":"SPEECH_ACTIVITY_BEGIN","speechEventOffset":"0.1s"}"#,
                r#"{"results":[],"speech_event_type":3}"#,
                r#"{"speechEventType":"SPEECH_ACTIVITY_TIMEOUT"}"#,
                r#"{"speechEventType":"END_OF_SINGLE_UTTERANCE"}"#,
            ],
            "+--",
        ),
        (
            "azure",
            &[
                r#"{"event":"speechStartDetected","sessionId":"s","offset":2000000}"#,
                r#"{"type":"speech_end_detected","sessionId":"s","offset":9000000}"#,
                r#"{"RecognitionStatus":"InitialSilenceTimeout","Offset":20000000,"Duration":30000000}"#,
                r#"{"RecognitionStatus":"BabbleTimeout","Offset":20000000,"Duration":30000000}"#,
            ],
            "+--2000..5000",
        ),
    ];
    for (dialect, frames, expected) in rows {
        assert_eq!(voice(dialect, frames), *expected, "{dialect}");
    }
}

#[test]
fn voice_detection_does_not_identify_a_dialect() {
    for frame in [r#"{"type":"SpeechStarted"}"#, r#"{"type":"Silence","start_ms":0,"end_ms":1}"#] {
        let mut events = Vec::new();
        let result = crate::stt::dialect("assemblyai").expect("a dialect").open().decode(frame, &mut events);
        assert_eq!(Fit::of(&result, &events, false), Fit::Control, "{frame}");
    }
}
