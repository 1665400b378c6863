//! The STT proxy on real sockets: bytes are unchanged in both directions; whatever fails at the vendor or the client,
//! no turn that the vendor finalised is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{SinkExt as _, StreamExt as _};
use sidetone::recording;
use sidetone::standin::{self, Options, Pace, Script};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::{Bytes, Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;

use crate::support::stt::{Socket, call, daemon, dial, hear, say, texts, turn, vendor};
use crate::support::{Chance, Json, PATIENCE, eventually, json, seed, shared};

const LIMIT: usize = 1 << 20;

/// The stand-in over a made-up call of four turns.
async fn standin(fault: Option<&str>, options: Options) -> (String, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let mut lines = vec![recording::write_frame(Duration::ZERO, r#"{"type":"Begin","id":"v-1","expires_at":1}"#)];
    for order in 0..4_u64 {
        for last in [false, true] {
            let at = Duration::from_millis(1000 * order + if last { 900 } else { 400 });
            lines.push(recording::write_frame(at, &turn(order, last).to_string()));
        }
    }
    let end = r#"{"type":"Termination","audio_duration_seconds":4,"session_duration_seconds":4}"#;
    lines.push(recording::write_frame(Duration::from_secs(4), end));
    let script = Script::new("call", &recording::parse(&lines.join("\n")).unwrap()).unwrap();
    let stop = CancellationToken::new();
    let fault = fault.map(|fault| fault.parse().unwrap());
    let options = Options { fault, faulty_sessions: Some(1), ..options };
    tokio::spawn(standin::serve(listener, vec![script], options, stop.clone()));
    (url, stop)
}

const TURNS: [&str; 4] = ["Turn 0.", "Turn 1.", "Turn 2.", "Turn 3."];

fn random(chance: &mut Chance) -> Message {
    // Every size up to the limit; small ones are more frequent.
    let size = match chance.below(10) {
        0 => LIMIT - chance.below(3),
        1 => chance.below(LIMIT),
        2 => 0,
        _ => chance.below(4000),
    };
    if chance.below(2) == 0 {
        let mut bytes = vec![0u8; size];
        bytes.iter_mut().for_each(|byte| *byte = chance.next().to_le_bytes()[0]);
        Message::Binary(Bytes::from(bytes))
    } else {
        let mut text: String =
            (0..size / 4).map(|_| ['a', '"', '\u{e9}', '{', '\n', '\u{1f600}'][chance.below(6)]).collect();
        text.truncate((0..=size.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
        Message::Text(Utf8Bytes::from(text))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_pass_byte_for_byte_both_ways() {
    let _machine = shared().await;
    let mut chance = Chance(seed("messages_pass_byte_for_byte_both_ways"));
    let (url, mut connections) = vendor().await;
    let daemon = daemon(&url, "").await;
    let client = dial(&daemon, "&x=%7B%22a+b&y=1").await;
    let (upstream, request) = tokio::time::timeout(PATIENCE, connections.recv()).await.unwrap().unwrap();
    assert_eq!(request.uri().to_string(), "/v3/ws?sample_rate=16000&x=%7B%22a+b&y=1");
    let count = crate::support::knob("PROXY_MESSAGES", 60);
    let exchange = |socket: Socket, messages: Vec<Message>, expected: usize| async move {
        let (mut writer, mut reader) = socket.split();
        let send = async {
            for message in messages.iter().cloned() {
                writer.send(message).await.unwrap();
            }
        };
        let receive = async {
            let mut received = Vec::new();
            while received.len() < expected {
                let message = tokio::time::timeout(PATIENCE, reader.next()).await.expect("a message").unwrap().unwrap();
                if message.is_text() || message.is_binary() {
                    received.push(message);
                }
            }
            received
        };
        let ((), received) = tokio::join!(send, receive);
        (messages, received, writer.reunite(reader).unwrap())
    };
    let make = |chance: &mut Chance| (0..count).map(|_| random(chance)).collect::<Vec<_>>();
    let (up, down) = (make(&mut chance), make(&mut chance));
    let ((up, got_down, client), (down, got_up, mut upstream)) =
        tokio::join!(exchange(client, up, count), exchange(upstream, down, count));
    assert!(up == got_up, "upwards");
    assert!(down == got_down, "downwards");
    let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame { code: 3999.into(), reason: "so long".into() };
    upstream.close(Some(frame)).await.unwrap();
    assert_eq!(hear(client).await, (vec![], Some(3999)));
    println!("{count} messages each way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_upstream_no_final_is_lost_and_the_call_completes() {
    let _machine = shared().await;
    for (fault, code, finals, told) in [
        ("drop@2", 3005, 2, false),
        ("cut@2", 1000, 2, false),
        ("3005@2", 3005, 2, true),
        ("3008@2", 3008, 2, true),
        ("1008", 1008, 0, true),
        ("refuse", 3005, 0, true),
    ] {
        let (url, _stop) =
            standin(Some(fault), Options { pace: Pace::Clock(20.0), fresh_ids: true, ..Options::default() }).await;
        let daemon = daemon(&url, "").await;
        let (heard, closed) = hear(dial(&daemon, &call("c1")).await).await;
        assert_eq!(closed, Some(code), "{fault}: {heard:?}");
        let last: Json = heard.last().map_or(Json::Null, |text| serde_json::from_str(text).unwrap());
        assert_eq!(last["type"] == "Error" && last["error_code"] == code, told, "{fault}: {last}");
        if finals > 0 {
            eventually("the finals are in the call", PATIENCE, || async {
                (daemon.turns("c1").await.len() == finals).then_some(())
            })
            .await;
        }
        // The vendor works again, and the client reconnects to its call.
        let (heard, closed) = hear(dial(&daemon, &call("c1")).await).await;
        assert_eq!((heard.len(), closed), (10, Some(1000)), "{fault}");
        daemon.completed("c1", PATIENCE).await;
        let expected: Vec<&str> = TURNS[..finals].iter().chain(&TURNS).copied().collect();
        let turns = daemon.turns("c1").await;
        assert_eq!(texts(&turns), expected, "{fault}");
        let events = daemon.events("c1").await;
        let gaps: Vec<&Json> = events.iter().filter(|event| event["type"] == "gap").collect();
        assert_eq!(gaps.len(), usize::from(finals > 0), "{fault}: {gaps:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finals_of_a_stalled_vendor_are_kept_and_the_client_reconnects() {
    let _machine = shared().await;
    let (url, _stop) =
        standin(Some("stall@2"), Options { pace: Pace::Clock(20.0), fresh_ids: true, ..Options::default() }).await;
    let daemon = daemon(&url, "").await;
    let mut client = dial(&daemon, &call("c1")).await;
    // `Begin`, and two turns with a partial and a final each; then nothing, also no frames of the daemon.
    for _ in 0..5 {
        tokio::time::timeout(PATIENCE, client.next()).await.expect("a message").unwrap().unwrap();
    }
    eventually("the finals are in the call", PATIENCE, || async {
        (texts(&daemon.turns("c1").await) == TURNS[..2]).then_some(())
    })
    .await;
    drop(client);
    eventually("the vendor's last words are not waited for any longer", PATIENCE, || async {
        (daemon.metric("sidetone_proxy_sessions", &[]).await == 0.0).then_some(())
    })
    .await;
    let (heard, closed) = hear(dial(&daemon, &call("c1")).await).await;
    assert_eq!((heard.len(), closed), (10, Some(1000)));
    daemon.completed("c1", PATIENCE).await;
    let expected: Vec<&str> = TURNS[..2].iter().chain(&TURNS).copied().collect();
    assert_eq!(texts(&daemon.turns("c1").await), expected);
    assert_eq!(daemon.events("c1").await.iter().filter(|event| event["type"] == "gap").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_the_limit_is_refused_in_the_vendors_form_and_one_at_it_passes() {
    let _machine = shared().await;
    let (url, mut connections) = vendor().await;
    let daemon = daemon(&url, "").await;
    let mut client = dial(&daemon, "").await;
    let (mut upstream, _) = connections.recv().await.unwrap();
    client.send(Message::Binary(Bytes::from(vec![7; LIMIT]))).await.unwrap();
    let passed = tokio::time::timeout(PATIENCE, upstream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(passed.len(), LIMIT);
    client.send(Message::Binary(Bytes::from(vec![7; LIMIT + 1]))).await.unwrap();
    let told = tokio::time::timeout(PATIENCE, upstream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(told.to_text().unwrap(), r#"{"type":"Terminate"}"#);
    drop(upstream);
    let (heard, closed) = hear(client).await;
    let error: Json = serde_json::from_str(&heard[0]).unwrap();
    assert_eq!((error["error_code"].as_u64(), closed), (Some(3006), Some(3006)), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbled_frames_are_relayed_and_a_slow_vendor_completes() {
    let _machine = shared().await;
    let (url, _stop) = standin(Some("garble@1"), Options { pace: Pace::Clock(20.0), ..Options::default() }).await;
    let garbled = daemon(&url, "").await;
    let (heard, closed) = hear(dial(&garbled, "").await).await;
    assert_eq!((heard.len(), closed), (14, Some(1000)), "{heard:?}");
    garbled.completed("v-1", PATIENCE).await;
    assert_eq!(texts(&garbled.turns("v-1").await), TURNS);
    assert!(garbled.metric("sidetone_proxy_garbled_frames_total", &[]).await >= 3.0);
    let (url, _stop) = standin(Some("slow"), Options { pace: Pace::Clock(20.0), ..Options::default() }).await;
    let slow = daemon(&url, "").await;
    assert_eq!(hear(dial(&slow, "").await).await.1, Some(1000));
    slow.completed("v-1", PATIENCE).await;
    assert_eq!(texts(&slow.turns("v-1").await), TURNS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_upstream_fails_after_10_s() {
    let _machine = shared().await;
    let (url, _connections) = vendor().await;
    let daemon = daemon(&url, "").await;
    let began = Instant::now();
    let (heard, closed) = hear(dial(&daemon, "").await).await;
    assert_eq!(closed, Some(3005));
    assert!(heard.len() == 1 && heard[0].contains("3005") && heard[0].contains("10 s"), "{heard:?}");
    assert!(began.elapsed() >= Duration::from_millis(9_900), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_drops_is_terminated_for_and_may_come_back() {
    let _machine = shared().await;
    let (url, mut connections) = vendor().await;
    let daemon = daemon(&url, "").await;
    let client = dial(&daemon, &call("c1")).await;
    let (mut upstream, _) = connections.recv().await.unwrap();
    upstream.send(say(&json!({"type": "Begin", "id": "v-1", "expires_at": 1}))).await.unwrap();
    upstream.send(say(&turn(0, true))).await.unwrap();
    drop(client);
    // The vendor bills open sockets: it gets a `Terminate`, and its last final is kept.
    let told = tokio::time::timeout(PATIENCE, upstream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(told.to_text().unwrap(), r#"{"type":"Terminate"}"#);
    upstream.send(say(&turn(1, true))).await.unwrap();
    upstream.send(say(&json!({"type": "Termination"}))).await.unwrap();
    eventually("both finals are in the call", PATIENCE, || async {
        (daemon.turns("c1").await.len() == 2).then_some(())
    })
    .await;
    eventually("the first session is over", PATIENCE, || async {
        (daemon.metric("sidetone_proxy_sessions", &[]).await == 0.0).then_some(())
    })
    .await;
    let client = dial(&daemon, &call("c1")).await;
    let (mut upstream, _) = connections.recv().await.unwrap();
    for frame in [json!({"type": "Begin", "id": "v-2", "expires_at": 1}), turn(0, true), json!({"type": "Termination"})]
    {
        upstream.send(say(&frame)).await.unwrap();
    }
    upstream.close(None).await.unwrap();
    assert_eq!(hear(client).await.0.len(), 3);
    daemon.completed("c1", PATIENCE).await;
    assert_eq!(texts(&daemon.turns("c1").await), ["Turn 0.", "Turn 1.", "Turn 0."]);
    let events = daemon.events("c1").await;
    assert_eq!(events.iter().filter(|event| event["type"] == "gap").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_key_replaces_the_clients_key_and_stays_secret() {
    let _machine = shared().await;
    let (url, mut connections) = vendor().await;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "vendor-key").unwrap();
    let daemon = daemon(&url, &format!("api_key = \"file:{}\"", key.display())).await;
    let reply = daemon.get("/v3/token?expires_in_seconds=60").await;
    let token = reply.json()["token"].as_str().unwrap().to_owned();
    assert!(!token.contains("vendor-key"));
    let _client = dial(&daemon, &format!("&token={token}")).await;
    let (_upstream, request) = tokio::time::timeout(PATIENCE, connections.recv()).await.unwrap().unwrap();
    assert_eq!(request.headers()["authorization"], "vendor-key");
    assert!(!request.uri().to_string().contains("token"), "{}", request.uri());
    let (heard, closed) = hear(dial(&daemon, "&token=stk.made.up").await).await;
    assert_eq!(closed, Some(1008), "{heard:?}");
    assert_eq!(daemon.get("/v3/token").await.status, 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_blocks_neither_direction() {
    let _machine = shared().await;
    let (url, mut connections) = vendor().await;
    let daemon = daemon(&url, "").await;
    let client = dial(&daemon, "").await;
    let (upstream, _) = connections.recv().await.unwrap();
    let (mut vendor_out, mut vendor_in) = upstream.split();
    let (mut client_out, _client_in) = client.split();
    // The client reads nothing: the vendor's messages accumulate, and the client's messages still pass.
    let flood = tokio::spawn(async move {
        let message = Message::Binary(Bytes::from(vec![0; 64 << 10]));
        while tokio::time::timeout(Duration::from_secs(1), vendor_out.send(message.clone()))
            .await
            .is_ok_and(|sent| sent.is_ok())
        {}
    });
    let heard = Arc::new(tokio::sync::Mutex::new(0));
    let count = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Some(Ok(message)) = vendor_in.next().await {
            if message.is_binary() {
                *count.lock().await += 1;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for _ in 0..50 {
        client_out.send(Message::Binary(Bytes::from(vec![1; 3200]))).await.unwrap();
    }
    let done = Arc::clone(&heard);
    eventually("the client's audio arrives", PATIENCE, || async { (*done.lock().await == 50).then_some(()) }).await;
    flood.abort();
}
