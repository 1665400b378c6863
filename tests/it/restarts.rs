//! If a vendor's session starts again behind the same producer, it is a new stream of the call. It is recognised by a
//! begin message, by another session id in messages, or by times that go back to about 0.

use crate::support::daemon::Daemon;
use crate::support::ws::ingest;
use crate::support::{Json, PATIENCE, eventually, json, shared};

/// One turn of session `id` (0 or 1), with times from the session's start.
fn session(dialect: &str, id: u8, times_only: bool) -> Vec<Json> {
    let text = ["First session.", "Second session."][usize::from(id)];
    // The first session has already lasted some time.
    let at = [20.0, 0.5][usize::from(id)];
    let name = format!("sess-{id}");
    let named = if times_only { Json::Null } else { json!(name) };
    let begin = |frame: Json| if times_only { Vec::new() } else { vec![frame] };
    match dialect {
        "assemblyai" => {
            let ms = if id == 0 { 20_000 } else { 500 };
            let turn = json!({"type":"Turn","turn_order":0,"turn_is_formatted":true,"end_of_turn":true,"transcript":text,
                "words":[{"start":ms,"end":ms + 900,"text":text,"confidence":0.9,"word_is_final":true}]});
            [begin(json!({"type":"Begin","id":name,"expires_at":1})), vec![turn]].concat()
        }
        "deepgram" => {
            let mut frame = json!({"type":"Results","channel_index":[0,1],"start":at,"duration":1.0,"is_final":true,
                "speech_final":true,"channel":{"alternatives":[{"transcript":text,"confidence":0.9,
                "words":[{"word":text,"start":at,"end":at + 0.9,"confidence":0.9}]}]}});
            if !times_only {
                frame["metadata"] = json!({"request_id":name});
            }
            vec![frame]
        }
        "deepgram_flux" => vec![json!({"type":"TurnInfo","request_id":named,"sequence_id":1,"event":"EndOfTurn","turn_index":0,
            "audio_window_start":at,"audio_window_end":at + 1.0,"transcript":text,"words":[]})],
        "openai_realtime" => [
            begin(json!({"type":"session.created","session":{"id":name}})),
            vec![
                json!({"type":"input_audio_buffer.speech_started","item_id":"item_1","audio_start_ms":at * 1000.0}),
                json!({"type":"conversation.item.input_audio_transcription.completed","item_id":"item_1",
                       "content_index":0,"transcript":text}),
            ],
        ]
        .concat(),
        "speechmatics" => [
            begin(json!({"message":"RecognitionStarted","id":name})),
            vec![
                json!({"message":"AddTranscript","metadata":{"start_time":at,"end_time":at + 1.0,"transcript":format!("{text} ")},
                       "results":[{"type":"word","start_time":at,"end_time":at + 1.0,"alternatives":[{"content":text}]}]}),
                json!({"message":"EndOfUtterance","metadata":{}}),
            ],
        ]
        .concat(),
        "gladia" => {
            let transcript = json!({"session_id":named,"type":"transcript","data":{"id":"00-0001","is_final":true,
                "utterance":{"start":at,"end":at + 1.0,"text":text,"words":[]}}});
            [begin(json!({"type":"start_session","session_id":name})), vec![transcript]].concat()
        }
        "soniox" => {
            let ms = if id == 0 { 20_000 } else { 500 };
            vec![json!({"tokens":[{"text":text,"start_ms":ms,"end_ms":ms + 900,"is_final":true},
                                  {"text":"<end>","is_final":true}]})]
        }
        "elevenlabs" => [
            begin(json!({"message_type":"session_started","session_id":name,"config":{"include_timestamps":true}})),
            vec![json!({"message_type":"committed_transcript_with_timestamps","text":text,
                        "segment_index":if times_only { Json::Null } else { json!(0) },"words":[{"text":text,"start":at,"end":at + 0.9,"type":"word"}]})],
        ]
        .concat(),
        "google" => vec![json!({"results":[{"alternatives":[{"transcript":text,"words":[
            {"word":text,"startOffset":format!("{at}s"),"endOffset":format!("{}s", at + 0.9)}]}],
            "isFinal":true,"resultEndOffset":format!("{}s", at + 1.0)}]})],
        "aws" => vec![json!({"Transcript":{"Results":[{"ResultId":format!("r-{id}"),"StartTime":at,"EndTime":at + 1.0,
            "IsPartial":false,"ChannelId":"ch_0","Alternatives":[{"Transcript":text,"Items":[]}]}]}})],
        "twilio" => [begin(json!({"type":"setup","sessionId":name})), vec![json!({"type":"prompt","voicePrompt":text,"last":true})]]
            .concat(),
        "recall" => vec![json!({"event":"transcript.data","data":{"data":{"words":[{"text":text,
            "start_timestamp":{"relative":at},"end_timestamp":{"relative":at + 0.9}}],"participant":{"id":1,"name":"Ana"}},
            "recording":{"id":named}}})],
        "zoom" => [
            begin(json!({"msg_type":4,"status_code":0,"rtms_stream_id":name})),
            vec![json!({"msg_type":17,"content":{"user_id":1,"user_name":"Ana","timestamp":1,"data":text}})],
        ]
        .concat(),
        "speechmatics_agent" => [
            begin(json!({"message":"RecognitionStarted","id":name})),
            vec![json!({"message":"AddSegment","segments":[{"speaker_id":"S1","text":text,"is_eou":true,
                        "metadata":{"start_time":at,"end_time":at + 1.0}}]})],
        ]
        .concat(),
        "aws_contact_lens" => [
            begin(json!({"EventType":"STARTED","ContactId":name})),
            vec![json!({"EventType":"SEGMENTS","ContactId":named,"Segments":[{"Transcript":{"Id":format!("t-{id}"),
                "ParticipantRole":"AGENT","Content":text,"BeginOffsetMillis":at * 1e3,"EndOffsetMillis":at * 1e3 + 900.0}}]})],
        ]
        .concat(),
        "azure" => [
            begin(json!({"event":"sessionStarted","sessionId":name})),
            vec![json!({"RecognitionStatus":"Success","DisplayText":text,"Offset":at * 1e7,"Duration":9_000_000})],
        ]
        .concat(),
        "gemini_live" => [
            begin(json!({"setupComplete":{"sessionId":name}})),
            vec![json!({"serverContent":{"inputTranscription":{"text":text,"finished":true}}})],
        ]
        .concat(),
        other => panic!("{other} has no session here"),
    }
}

const DIALECTS: [&str; 17] = [
    "assemblyai",
    "deepgram",
    "deepgram_flux",
    "openai_realtime",
    "speechmatics",
    "gladia",
    "soniox",
    "elevenlabs",
    "google",
    "aws",
    "twilio",
    "recall",
    "zoom",
    "speechmatics_agent",
    "aws_contact_lens",
    "azure",
    "gemini_live",
];
/// Dialects whose restarts also show in times, if no message names the session.
const BY_TIMES: [&str; 10] = [
    "deepgram",
    "speechmatics",
    "soniox",
    "deepgram_flux",
    "gladia",
    "elevenlabs",
    "recall",
    "speechmatics_agent",
    "aws_contact_lens",
    "azure",
];

/// Checks for a new stream, a gap, an offset after all earlier speech, and a separate turn.
async fn assert_new_stream(daemon: &Daemon, call: &str) {
    let turns = eventually(&format!("{call} has two turns"), PATIENCE, || async {
        if daemon.get(&format!("/v1/calls/{call}")).await.status != 200 {
            return None;
        }
        let turns = daemon.turns(call).await;
        (turns.len() == 2).then_some(turns)
    })
    .await;
    assert_eq!((&turns[0]["text"], &turns[1]["text"]), (&json!("First session."), &json!("Second session.")), "{call}");
    assert_eq!((&turns[0]["stream_id"], &turns[1]["stream_id"]), (&json!("s_1"), &json!("s_1~2")), "{call}");
    assert_eq!((&turns[1]["turn_order"], &turns[1]["rev"]), (&json!(0), &json!(0)), "{call}");
    assert!(turns[1]["start_ms"].as_u64() >= turns[0]["end_ms"].as_u64(), "{call}: {turns:?}");
    let events = daemon.events(call).await;
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(
        kinds,
        ["call.started", "stream.started", "turn.final", "stream.ended", "stream.started", "gap", "turn.final"],
        "{call}"
    );
    assert_eq!((&events[3]["stream_id"], &events[4]["stream_id"]), (&json!("s_1"), &json!("s_1~2")), "{call}");
    assert_eq!(
        (&events[5]["cause"], &events[5]["to_ms"]),
        (&json!("stt_disconnect"), &events[4]["offset_ms"]),
        "{call}"
    );
    assert_eq!(events[5]["from_ms"], turns[0]["end_ms"], "{call}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_vendor_session_is_a_new_stream_in_every_dialect() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let all = DIALECTS.iter().map(|dialect| (*dialect, false)).chain(BY_TIMES.iter().map(|dialect| (*dialect, true)));
    for (dialect, times_only) in all {
        let call = format!("{dialect}_{times_only}");
        let query = format!("call_id={call}&stream_id=s_1&dialect={dialect}&analyses=");
        let (mut client, _) = ingest(&daemon, &query).await;
        let frames: Vec<Json> = [session(dialect, 0, times_only), session(dialect, 1, times_only)].concat();
        for frame in &frames {
            client.send(frame).await;
        }
        assert_new_stream(&daemon, &call).await;
        let ack = client.acked_frames(frames.len() as u64).await;
        assert_eq!((&ack["stream_id"], &ack["turn_order"]), (&json!("s_1~2"), &json!(0)), "{call}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_session_on_a_new_connection_is_a_new_stream_and_a_resent_one_is_not() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    // The other dialects have neither session ids nor, across connections, times that show a restart.
    for dialect in DIALECTS.iter().filter(|dialect| **dialect != "aws") {
        let query = format!("call_id={dialect}&stream_id=s_1&dialect={dialect}&analyses=");
        let (mut client, _) = ingest(&daemon, &query).await;
        let first = session(dialect, 0, false);
        for frame in &first {
            client.send(frame).await;
        }
        client.acked_frames(first.len() as u64).await;
        client.close().await;
        let (mut client, welcome) = ingest(&daemon, &query).await;
        assert_eq!(welcome["frames"], first.len(), "{dialect}");
        for frame in session(dialect, 1, false) {
            client.send(&frame).await;
        }
        assert_new_stream(&daemon, dialect).await;
    }
    // A producer without state sends its session again from the beginning, even both sessions.
    for dialect in ["assemblyai", "deepgram_flux", "openai_realtime", "gladia"] {
        let query = format!("call_id={dialect}&stream_id=s_1&dialect={dialect}&analyses=");
        let (mut client, _) = ingest(&daemon, &query).await;
        let frames = [session(dialect, 0, false), session(dialect, 1, false)].concat();
        for frame in &frames {
            client.send(frame).await;
        }
        client.send(&json!({"type":"meta","meta":{"again":true}})).await;
        eventually("all is applied", PATIENCE, || async {
            (daemon.get_json(&format!("/v1/calls/{dialect}")).await["meta"]["again"] == true).then_some(())
        })
        .await;
        assert_eq!(daemon.turns(dialect).await.len(), 2, "{dialect}");
        let started = daemon.events(dialect).await.iter().filter(|event| event["type"] == "stream.started").count();
        assert_eq!(started, 2, "{dialect}");
    }
}
