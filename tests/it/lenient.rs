//! An unreadable part of a vendor's frame costs only that part, and an error names it, on a socket and in a whole
//! recording; the same fields in another spelling cause no error.

use crate::support::daemon::Daemon;
use crate::support::ws::ingest;
use crate::support::{Json, PATIENCE, json, shared};

/// Frames of one turn each, and the field that an error must name; `None`: the whole frame is readable.
fn frames() -> Vec<(&'static str, Json, Option<&'static str>)> {
    let deepgram = |start: Json, word: Json| {
        json!({"type":"Results","channel_index":[0,1],"start":start,"duration":null,"is_final":"true","speech_final":1,
               "channel":{"alternatives":[{"transcript":"one two","confidence":"0.9","words":[
                   {"word":"one","start":"0.5","end":0.9}, word]}]}})
    };
    let word = json!({"word":"two","start":1,"end":1.2,"confidence":{}, "speaker":0});
    let alternatives = json!([{"Transcript":{"x":1}}, {"Transcript":"one two","Items":[
        {"Type":"pronunciation"},{"Type":"pronunciation","Content":"one","StartTime":"0.5","EndTime":0.9}]}]);
    vec![
        ("deepgram", deepgram(Json::Null, json!({"word":"two","start":1,"end":1.2})), None),
        ("deepgram", deepgram(json!("0.4"), json!({"word":"two","start":"late","end":{}})), Some("words[1].start")),
        ("deepgram", deepgram(json!(0.4), word), Some("words[1].confidence")),
        (
            "google",
            json!({"results":[{"isFinal":true,"alternatives":[{"transcript":"one two","words":[
                {"word":"one","startTime":{"seconds":{"low":0,"high":0,"unsigned":false},"nanos":500000000},"start_time":null,
                 "endTime":{"seconds":"0","nanos":900000000},"speakerTag":1,"speakerLabel":"1"}]}]}],"error":false}),
            None,
        ),
        (
            "aws",
            json!({"Transcript":{"Results":[{"IsPartial":false,"Alternatives":alternatives}]}}),
            Some("Alternatives[0]"),
        ),
        (
            "soniox",
            json!({"tokens":[{"text":"one","start_ms":500.4,"end_ms":"900","is_final":true},
                             {"text":" two","start_ms":[],"is_final":true},{"text":"<end>","is_final":true}]}),
            Some("tokens[1].start_ms"),
        ),
        (
            "assemblyai",
            json!({"type":"Turn","turn_order":"0","end_of_turn":"true","transcript":"one two","words":[
                {"text":"one","start":500.4,"end":900.2,"confidence":"1"},null]}),
            None,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_part_loses_only_itself_and_is_named() {
    let _machine = shared().await;
    let daemon = Daemon::start("[ingest]\nlinger_ms = 50\nanalyses = []\n").await;
    for (number, (dialect, frame, named)) in frames().into_iter().enumerate() {
        let (call, what) = (format!("c{number}"), format!("{dialect}: {frame}"));
        let (mut client, _) = ingest(&daemon, &format!("call_id={call}&stream_id=s&dialect={dialect}")).await;
        client.send(&frame).await;
        client.send(&json!({"type":"end","scope":"call"})).await;
        client.of_type("call.completed").await;
        let errors: Vec<&Json> = client.seen.iter().filter(|frame| frame["type"] == "error").collect();
        match named {
            None => assert!(errors.is_empty(), "{what}: {errors:?}"),
            Some(field) => {
                let [error] = errors[..] else { panic!("{what}: {errors:?}") };
                assert_eq!((&error["code"], &error["fatal"]), (&json!("bad_field"), &json!(false)), "{what}");
                assert!(error["message"].as_str().is_some_and(|message| message.contains(field)), "{what}: {error}");
            }
        }
        let turns = daemon.turns(&call).await;
        assert_eq!(
            (turns.len(), &turns[0]["text"], &turns[0]["start_ms"]),
            (1, &json!("one two"), &json!(500)),
            "{what}"
        );

        // The same frames as a whole recording.
        let posted = json!({"call_id":format!("{call}-whole"),"recording":[frame],"dialect":dialect});
        let reply = daemon.post("/v1/transcripts", &posted).await;
        assert_eq!(reply.status, 200, "{what}: {}", reply.text());
        let errors = reply.json()["errors"].clone();
        match named {
            None => assert!(errors.is_null(), "{what}: {errors}"),
            Some(field) => {
                let named = errors[0]["message"].as_str().is_some_and(|message| message.contains(field));
                assert!(named && errors[0]["recording"] == 0, "{what}: {errors}");
            }
        }
        daemon.completed(&call, PATIENCE).await;
    }
}
