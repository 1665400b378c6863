use super::*;
use crate::base::ws::{Incoming, connect};
use crate::recording;

const CALL: &str = r#"{"at_ms":0,"message":{"type":"Begin","id":"s-1","expires_at":1}}
{"at_ms":100,"message":{"type":"Turn","turn_order":0,"turn_is_formatted":true,"end_of_turn":false,"transcript":"one","end_of_turn_confidence":0,"words":[]}}
{"at_ms":200,"message":{"type":"Turn","turn_order":0,"turn_is_formatted":true,"end_of_turn":true,"transcript":"One.","end_of_turn_confidence":1,"words":[],"speaker_label":"A"}}
{"at_ms":9000,"message":{"type":"Turn","turn_order":1,"turn_is_formatted":true,"end_of_turn":false,"transcript":"two","end_of_turn_confidence":0,"words":[]}}
{"at_ms":9900,"message":{"type":"Turn","turn_order":1,"turn_is_formatted":true,"end_of_turn":true,"transcript":"Two.","end_of_turn_confidence":1,"words":[]}}
{"at_ms":10000,"message":{"type":"Termination","audio_duration_seconds":10,"session_duration_seconds":10}}"#;

async fn standin(options: Options) -> (String, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let script = Script::new("call", &recording::parse(CALL).expect("recording")).expect("script");
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, vec![script], options, stop.clone()));
    (format!("ws://{address}/v3/ws?sample_rate=16000"), stop)
}

/// All text messages that arrive, and the close code. `say` is sent first.
async fn hear(url: &str, say: &[&'static str]) -> (Vec<String>, Option<u16>) {
    let mut socket =
        connect(url, &http::HeaderMap::new(), MAX_MESSAGE_BYTES, Duration::from_secs(60)).await.expect("connect");
    socket.send(say.iter().map(|text| crate::base::ws::Utf8Bytes::from_static(text))).await.expect("send");
    let mut heard = Vec::new();
    loop {
        match socket.recv().await {
            Ok(Incoming::Text(text)) => heard.push(text.to_string()),
            Ok(Incoming::Closed { code, .. }) => return (heard, Some(code)),
            Ok(_) => {}
            Err(_) => return (heard, None),
        }
    }
}

fn recorded() -> Vec<String> {
    recording::parse(CALL).expect("recording").frames.iter().map(|frame| frame.message.to_string()).collect()
}

#[tokio::test]
async fn the_recording_comes_byte_for_byte_and_closes_as_the_vendor_does() {
    let (url, _stop) = standin(Options { pace: Pace::Max, ..Options::default() }).await;
    assert_eq!(hear(&url, &[]).await, (recorded(), Some(1000)));
    let (heard, code) = hear(&url, &[r#"{"type":"KeepAlive"}"#, r#"{"type":"Shout"}"#]).await;
    assert_eq!(code, Some(3006));
    assert!(heard.last().expect("error").contains("Invalid Message Type: Shout"), "{heard:?}");
}

#[tokio::test]
async fn audio_paces_and_terminate_ends_the_open_turn() {
    let (url, _stop) = standin(Options { pace: Pace::Audio, ..Options::default() }).await;
    let mut socket =
        connect(&url, &http::HeaderMap::new(), MAX_MESSAGE_BYTES, Duration::from_secs(60)).await.expect("connect");
    for _ in 0..10 {
        // 900 ms of 16 kHz PCM16.
        socket.send_binary(Bytes::from(vec![0; 28_800])).await.expect("audio");
    }
    let mut heard = Vec::new();
    while heard.len() < 4 {
        if let Incoming::Text(text) = socket.recv().await.expect("frame") {
            heard.push(text.to_string());
        }
    }
    assert_eq!(heard, recorded()[..4], "9 s were heard: up to the second turn's partial");
    socket.send([crate::base::ws::Utf8Bytes::from_static(r#"{"type":"Terminate"}"#)]).await.expect("terminate");
    let mut rest = Vec::new();
    let code = loop {
        match socket.recv().await.expect("frame") {
            Incoming::Text(text) => rest.push(text.to_string()),
            Incoming::Closed { code, .. } => break code,
            _ => {}
        }
    };
    assert_eq!((rest, code), (recorded()[4..].to_vec(), 1000));
}

#[tokio::test]
async fn faults_happen_at_their_frame() {
    for (fault, frames, code) in [
        ("drop@1", 3, None),
        ("cut@1", 3, Some(1000)),
        ("1008", 1, Some(1008)),
        ("3005@1", 4, Some(3005)),
        ("3008@2", 6, Some(3008)),
        ("garble@1", 10, Some(1000)),
    ] {
        let fault = fault.parse().expect("fault");
        let (url, _stop) =
            standin(Options { pace: Pace::Max, fault: Some(fault), faulty_sessions: Some(1), ..Options::default() })
                .await;
        let (heard, closed) = hear(&url, &[]).await;
        assert_eq!((heard.len(), closed), (frames, code), "{fault:?}: {heard:?}");
        assert_eq!(hear(&url, &[]).await.1, Some(1000), "the second session is well");
    }
    let (url, _stop) = standin(Options { fault: Some("refuse".parse().expect("fault")), ..Options::default() }).await;
    let refused = connect(&url, &http::HeaderMap::new(), MAX_MESSAGE_BYTES, Duration::from_secs(60)).await;
    assert!(matches!(refused, Err(crate::base::ws::DialError::Status { status: 503, .. })));
}

#[tokio::test]
async fn keys_are_checked_after_the_upgrade() {
    let (url, _stop) = standin(Options { pace: Pace::Max, key: Some("k".to_owned()), ..Options::default() }).await;
    assert_eq!(hear(&url, &[]).await.1, Some(1008));
    assert_eq!(hear(&format!("{url}&token=x"), &[]).await.1, Some(1008));
    assert_eq!(hear(&format!("{url}&token=k"), &[]).await.1, Some(1000));
}

#[tokio::test]
async fn extras_are_added_where_the_recording_lacks_them() {
    let (url, _stop) = standin(Options { pace: Pace::Max, extras: true, fresh_ids: true, ..Options::default() }).await;
    let (heard, _) = hear(&url, &[]).await;
    let count = |kind: &str| heard.iter().filter(|frame| frame.contains(kind)).count();
    assert_eq!((count("SpeechStarted"), count("SpeakerRevision")), (2, 1));
    assert!(!heard[0].contains("s-1"), "{}", heard[0]);
}
