//! Frames that the proxy adds to a session on request: one answer per turn, whatever the client and the vendor do;
//! insights; and the effects of limits on a session.

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;

use crate::support::daemon::{Daemon, LOCAL_ANALYSES};
use crate::support::llm::{MockLlm, Step};
use crate::support::stt::{Socket, call, daemon, dial, hear, say, texts, turn, vendor};
use crate::support::ws::{Client, Options, encode};
use crate::support::{Json, PATIENCE, eventually, json, shared};

/// A query with a question about each turn.
fn asking() -> String {
    let question = json!({"model": "mocked", "messages": [{"role": "user", "content": "{{turn}}"}], "max_tokens": 9});
    format!("&llm_gateway={}", encode(&question.to_string()))
}

/// One of the two ends of a turn.
fn end(order: u64, formatted: bool) -> Json {
    let mut end = turn(order, true);
    end["turn_is_formatted"] = json!(formatted);
    if !formatted {
        end["transcript"] = json!(format!("turn {order}"));
    }
    end
}

fn begin(id: &str) -> Json {
    json!({"type": "Begin", "id": id, "expires_at": 1})
}

fn termination() -> Json {
    json!({"type": "Termination", "audio_duration_seconds": 1, "session_duration_seconds": 1})
}

async fn next(socket: &mut Socket) -> Json {
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.expect("a message").unwrap().unwrap();
        if let Message::Text(text) = message {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

/// The next answer; frames before it are skipped.
async fn answer(socket: &mut Socket) -> Json {
    loop {
        let message = next(socket).await;
        if message["type"] == "LLMGatewayResponse" {
            return message;
        }
    }
}

async fn daemon_asking(mock: &MockLlm, upstream: &str) -> Daemon {
    daemon(upstream, &mock.config("total_timeout_ms = 60000\n")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn formatting_is_turned_off_and_on_and_each_turn_is_answered_once() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    mock.script(|asked| match asked.schema_name() {
        "" => Step::Say(format!("re: {}", asked.text_of("user")), Duration::ZERO),
        // The request of an analysis.
        _ => Step::Answer(Duration::ZERO),
    });
    let (url, mut connections) = vendor().await;
    let daemon = daemon_asking(&mock, &url).await;
    let mut client = dial(&daemon, &format!("&format_turns=true{}{}", call("c1"), asking())).await;
    let (mut upstream, _) = connections.recv().await.unwrap();
    let mut answers = Vec::new();
    upstream.send(say(&begin("v-1"))).await.unwrap();
    for formatted in [false, true] {
        upstream.send(say(&end(0, formatted))).await.unwrap();
    }
    answers.push(answer(&mut client).await);
    let update = |on: bool| json!({"format_turns": on, "type": "UpdateConfiguration"});
    client.send(say(&update(false))).await.unwrap();
    assert_eq!(next(&mut upstream).await, update(false));
    upstream.send(say(&end(1, false))).await.unwrap();
    answers.push(answer(&mut client).await);
    client.send(say(&update(true))).await.unwrap();
    assert_eq!(next(&mut upstream).await, update(true));
    // Sent before the vendor accepted the session: each turn ends only once. The same holds for the last turn.
    for (order, formatted) in [(2, false), (3, false), (3, true), (4, false)] {
        upstream.send(say(&end(order, formatted))).await.unwrap();
    }
    upstream.send(say(&termination())).await.unwrap();
    upstream.close(None).await.unwrap();
    let (heard, _) = hear(client).await;
    let heard: Vec<Json> = heard.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(heard.last().unwrap()["type"], "Termination");
    answers.extend(heard.into_iter().filter(|message| message["type"] == "LLMGatewayResponse"));
    answers.sort_by_key(|answer| answer["turn_order"].as_u64());
    let expected = ["Turn 0.", "turn 1", "turn 2", "Turn 3.", "turn 4"];
    assert_eq!(answers.len(), expected.len(), "{answers:?}");
    for (order, (answer, said)) in answers.iter().zip(expected).enumerate() {
        assert_eq!((answer["turn_order"].as_u64(), &answer["transcript"]), (Some(order as u64), &json!(said)));
        assert_eq!(answer["data"]["choices"][0]["message"]["content"], format!("re: {said}"), "{answer}");
    }
    daemon.completed("c1", PATIENCE).await;
    assert_eq!(texts(&daemon.turns("c1").await), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turn_over_the_queue_limit_gets_overloaded_at_once() {
    const TURNS: usize = 90;
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    mock.script(|_| Step::Stall);
    let (url, mut connections) = vendor().await;
    let daemon = daemon_asking(&mock, &url).await;
    let mut client = dial(&daemon, &asking()).await;
    let (mut upstream, _) = connections.recv().await.unwrap();
    upstream.send(say(&begin("v-1"))).await.unwrap();
    let mut heard = vec![next(&mut client).await];
    for order in 0..TURNS as u64 {
        upstream.send(say(&end(order, true))).await.unwrap();
    }
    upstream.send(say(&termination())).await.unwrap();
    upstream.close(None).await.unwrap();
    let (rest, _) = hear(client).await;
    heard.extend(rest.iter().map(|text| serde_json::from_str::<Json>(text).unwrap()));
    // 64 turns wait and 4 are being asked about; how many of these had started when the last turn came is random.
    let overloaded: Vec<usize> =
        (0..heard.len()).filter(|&at| heard[at]["data"]["failed"]["code"] == "overloaded").collect();
    assert!((TURNS - 68..=TURNS - 64).contains(&overloaded.len()), "{overloaded:?}");
    for at in overloaded {
        assert_eq!((&heard[at - 1]["type"], &heard[at - 1]["turn_order"]), (&json!("Turn"), &heard[at]["turn_order"]));
        assert!(heard[at]["turn_order"].as_u64() >= Some(64), "{}", heard[at]);
    }
    let mut orders: Vec<u64> = heard
        .iter()
        .filter(|message| message["type"] == "LLMGatewayResponse")
        .map(|message| message["turn_order"].as_u64().unwrap())
        .collect();
    orders.sort_unstable();
    assert_eq!(orders, (0..TURNS as u64).collect::<Vec<_>>(), "each turn once");
    assert_eq!(heard.last().unwrap()["type"], "Termination");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insight_answers_the_newest_turn_of_the_vendors() {
    let _machine = shared().await;
    let (url, mut connections) = vendor().await;
    let local =
        LOCAL_ANALYSES.replacen("[analyses.summary]", "[analyses.summary]\nevery_n_turns = 1\ndebounce_ms = 0", 1);
    let daemon = daemon(&url, &local).await;
    let ours = json!({"call_id": "c1", "analyses": ["summary"]}).to_string();
    let mut client = dial(&daemon, &format!("&sidetone={}", encode(&ours))).await;
    let (mut upstream, _) = connections.recv().await.unwrap();
    upstream.send(say(&begin("v-1"))).await.unwrap();
    // The vendor's turn numbers may differ from the daemon's.
    for (order, covered) in [(3, 1), (7, 2)] {
        upstream.send(say(&turn(order, true))).await.unwrap();
        let insight = loop {
            let insight = answer(&mut client).await;
            assert_eq!(insight["turn_order"], order, "{insight}");
            if insight["data"]["insight"]["covers"]["turns"] == covered {
                break insight;
            }
        };
        assert_eq!(insight["data"]["type"], "insight.updated", "{insight}");
        assert_eq!(insight["transcript"], "");
        assert!(insight.get("error").is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insight_into_one_turn_is_an_answer_to_that_turn() {
    let _machine = shared().await;
    let (url, mut connections) = vendor().await;
    let daemon = daemon(&url, LOCAL_ANALYSES).await;
    let ours = json!({"call_id": "c1", "analyses": ["sentiment_turn"]}).to_string();
    let mut client = dial(&daemon, &format!("&sidetone={}", encode(&ours))).await;
    let (mut upstream, _) = connections.recv().await.unwrap();
    upstream.send(say(&begin("v-1"))).await.unwrap();
    for order in [3, 7] {
        upstream.send(say(&turn(order, true))).await.unwrap();
    }
    let mut answered = Vec::new();
    while answered.len() < 2 {
        let insight = answer(&mut client).await;
        assert!(!insight["transcript"].as_str().unwrap_or_default().is_empty(), "{insight}");
        answered.push((insight["data"]["insight"]["turn"].as_u64(), insight["turn_order"].as_u64()));
    }
    answered.sort_unstable();
    assert_eq!(answered, [(Some(0), Some(3)), (Some(1), Some(7))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_connections_refuses_a_session_before_the_vendor_is_dialled() {
    let _machine = shared().await;
    let (url, mut connections) = vendor().await;
    let daemon = daemon(&url, "[limits]\nper_address = 2").await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push((dial(&daemon, "").await, connections.recv().await.unwrap()));
    }
    match Client::try_connect(&daemon.ws("/v3/ws?sample_rate=16000"), &Options::default()).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(reply)) => {
            assert_eq!(reply.status(), 503);
            let body = String::from_utf8_lossy(reply.body().as_deref().unwrap_or_default()).into_owned();
            assert!(body.contains("limits.per_address"), "{body}");
        }
        other => panic!("{:?}", other.map(|client| client.closed)),
    }
    assert!(connections.try_recv().is_err(), "the vendor was dialled");
    // Sessions that are open already are not affected.
    let (client, (upstream, _)) = &mut held[0];
    upstream.send(say(&begin("v-1"))).await.unwrap();
    assert_eq!(next(client).await, begin("v-1"));
    held.pop();
    eventually("there is room again", PATIENCE, || async {
        let again = Client::try_connect(&daemon.ws("/v3/ws?sample_rate=16000"), &Options::default()).await.ok()?;
        again.close().await;
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_over_the_limit_of_calls_is_relayed_without_one() {
    let _machine = shared().await;
    let (url, mut connections) = vendor().await;
    let daemon = daemon(&url, "[limits]\nopen_calls = 1").await;
    let mut sessions = Vec::new();
    for id in ["v-1", "v-2"] {
        let mut client = dial(&daemon, "").await;
        let (mut upstream, _) = connections.recv().await.unwrap();
        for frame in [begin(id), turn(0, true)] {
            upstream.send(say(&frame)).await.unwrap();
            assert_eq!(next(&mut client).await, frame);
        }
        eventually("the tap has had it", PATIENCE, || async {
            let known = daemon.get(&format!("/v1/calls/{id}")).await.status == 200;
            let refused = daemon.metric("sidetone_proxy_refused_calls_total", &[]).await == 1.0;
            (known == (id == "v-1") && refused == (id == "v-2")).then_some(())
        })
        .await;
        sessions.push((client, upstream));
    }
    assert!(daemon.log().contains("open_calls"), "the log names the limit");
    for (client, mut upstream) in sessions {
        upstream.send(say(&termination())).await.unwrap();
        upstream.close(None).await.unwrap();
        assert_eq!(hear(client).await.0.len(), 1);
    }
    daemon.completed("v-1", PATIENCE).await;
}

/// Errors in the daemon's own parameter have the same form as insights, unless the client wants no results.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_parameter_is_told_on_the_socket() {
    let _machine = shared().await;
    let (url, mut connections) = vendor().await;
    let daemon = daemon(&url, "").await;
    for (ours, code, says) in [
        (r#"{"call_id":"c1","analyses":["summary","moood"]}"#, Some("unknown_analysis"), "moood"),
        (r#"{"call_id":5}"#, Some("bad_parameter"), "column"),
        (r#"{"call_id":"c3","analyses":["moood"],"results":"none"}"#, None, ""),
    ] {
        let mut client = dial(&daemon, &format!("&sidetone={}", encode(ours))).await;
        let (mut upstream, _) = connections.recv().await.unwrap();
        upstream.send(say(&begin("v-1"))).await.unwrap();
        assert_eq!(next(&mut client).await["type"], "Begin", "{ours}");
        if let Some(code) = code {
            let told = answer(&mut client).await;
            let error = &told["data"];
            assert_eq!(
                (&error["type"], &error["code"], &error["fatal"]),
                (&json!("error"), &json!(code), &json!(false))
            );
            assert!(error["message"].as_str().is_some_and(|message| message.contains(says)), "{ours}: {told}");
            assert!(told.get("error").is_none(), "which the vendor's client takes for the end: {told}");
        }
        upstream.send(say(&turn(0, true))).await.unwrap();
        upstream.send(say(&termination())).await.unwrap();
        upstream.close(None).await.unwrap();
        let (heard, _) = hear(client).await;
        assert!(heard.iter().any(|text| text.contains("Turn 0.")), "{ours}: {heard:?}");
        let errors = heard.iter().filter(|text| text.contains(r#""error""#)).count();
        assert_eq!(errors, 0, "told once, or not at all: {heard:?}");
    }
    daemon.completed("c1", PATIENCE).await;
    let last = daemon.events("c1").await.pop().expect("events");
    assert_eq!(last["final"].as_object().map(serde_json::Map::len), Some(1), "those that there are run: {last}");
}
