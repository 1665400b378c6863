use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming as Body;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::base::settings::Problems;
use crate::base::ws::{Incoming, Upgrade};
use crate::hub;
use crate::hub::testing::{Memory, call, turn};
use crate::protocol::Event;

fn config(text: &str) -> Config {
    let mut problems = Problems::default();
    let value = toml::Value::Table(text.parse().expect("toml"));
    let config = Config::read("sink[0]".into(), value, &["summary".into()], &mut problems);
    config.unwrap_or_else(|| panic!("{:?}", problems.into_vec()))
}

fn publish(store: &Memory, name: &str, count: u64) {
    if store.log(&call(name)).is_empty() {
        store.start(&call(name), "{}");
    }
    for number in 0..count {
        store.add(&call(name), &Event::TurnFinal { turn: turn(number, "hello") });
    }
}

/// A running sink; [`Running::stop`] stops it gracefully.
struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    metrics: Metrics,
}

impl Running {
    fn start(config: Config, dir: &tempfile::TempDir, hub: &hub::Hub) -> Self {
        let metrics = Metrics::register(&mut Registry::default());
        let stop = CancellationToken::new();
        let run = run(config, dir.path().join("sinks"), hub.clone(), metrics.clone(), stop.clone());
        Self { stop, task: tokio::spawn(run), metrics }
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(60), self.task).await.expect("in time").expect("no panic");
    }
}

/// A peer of websocket sinks: accepts this many frames on each connection, then drops it; 0 = accepts all.
async fn websocket_peer(mut cuts: VecDeque<usize>) -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("ws://{}/in", listener.local_addr().expect("address"));
    let (sender, receiver) = mpsc::channel(10_000);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let cut = cuts.pop_front().unwrap_or(0);
            let sender = sender.clone();
            let service = service_fn(move |mut request| {
                let sender = sender.clone();
                async move {
                    let (upgrade, response) =
                        Upgrade::new(&mut request, 1 << 20, None, Empty::<bytes::Bytes>::new).expect("an upgrade");
                    tokio::spawn(async move {
                        let mut socket = upgrade.socket().await.expect("socket");
                        let mut taken = 0;
                        while let Ok(incoming) = socket.recv().await {
                            let Incoming::Text(text) = incoming else { continue };
                            sender.send(serde_json::from_str(&text).expect("json")).await.expect("read");
                            taken += 1;
                            if taken == cut {
                                break;
                            }
                        }
                    });
                    Ok::<_, Infallible>(response)
                }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move { drop(connection.with_upgrades().await) });
        }
    });
    (url, receiver)
}

/// Checks that frames arrive at least once and, except for resent ones, in order.
#[derive(Default)]
struct Seen(HashMap<String, u64>);

impl Seen {
    fn take(&mut self, frame: &Value) {
        let id = frame["call_id"].as_str().expect("call").to_owned();
        let seq = frame["seq"].as_u64().expect("seq");
        let newest = self.0.entry(id).or_default();
        assert!(seq <= *newest + 1, "{seq} after {newest}: something is missing");
        *newest = seq.max(*newest);
    }

    fn newest(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

async fn next(frames: &mut mpsc::Receiver<Value>) -> Value {
    tokio::time::timeout(Duration::from_secs(60), frames.recv()).await.expect("in time").expect("open")
}

#[tokio::test]
async fn websocket_sink_gets_every_event_over_reconnects_and_restarts() {
    // The store answers late.
    let (hub, store) = hub::testing::late_hub(hub::Config { call_bytes: 2000, ring_bytes: 8000 }, 11);
    let dir = tempfile::tempdir().expect("dir");
    let (url, mut frames) = websocket_peer([3, 7, 0].into()).await;
    publish(&store, "c_before", 5);
    let text = format!("kind = \"websocket\"\nurl = \"{url}\"");
    let running = Running::start(config(&text), &dir, &hub);
    // A sink starts with new events: those of `run`'s call are included, although its task has not run yet.
    publish(&store, "c_1", 40);
    publish(&store, "c_2", 40);
    let mut seen = Seen::default();
    while seen.newest("c_1") < 41 || seen.newest("c_2") < 41 {
        let frame = next(&mut frames).await;
        assert!(frame["cursor"].is_string(), "{frame}");
        seen.take(&frame);
    }
    assert_eq!(seen.newest("c_before"), 0);
    running.stop().await;
    // Events that are published while the sink is stopped are delivered when it runs again; confirmed ones are not.
    publish(&store, "c_1", 10);
    let running = Running::start(config(&text), &dir, &hub);
    let first = next(&mut frames).await;
    assert_eq!((&first["call_id"], &first["seq"]), (&"c_1".into(), &42.into()), "the position was stored");
    seen.take(&first);
    while seen.newest("c_1") < 51 {
        seen.take(&next(&mut frames).await);
    }
    running.stop().await;
}

#[derive(Debug)]
struct Posted {
    headers: http::HeaderMap,
    body: bytes::Bytes,
}

/// A receiver of webhooks that answers with `statuses`, then with 204.
async fn webhook_receiver(statuses: &[u16]) -> (String, mpsc::Receiver<Posted>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}/hook?a=b", listener.local_addr().expect("address"));
    let (sender, receiver) = mpsc::channel(1000);
    let statuses = Arc::new(Mutex::new(statuses.iter().copied().collect::<VecDeque<_>>()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (sender, statuses) = (sender.clone(), Arc::clone(&statuses));
            let service = service_fn(move |request: hyper::Request<Body>| {
                let (sender, statuses) = (sender.clone(), Arc::clone(&statuses));
                async move {
                    assert_eq!(request.uri(), "/hook?a=b");
                    let headers = request.headers().clone();
                    let body = request.into_body().collect().await.expect("body").to_bytes();
                    sender.send(Posted { headers, body }).await.expect("read");
                    let status = statuses.lock().expect("lock").pop_front().unwrap_or(204);
                    let response = hyper::Response::builder().status(status).body(Full::<bytes::Bytes>::default());
                    Ok::<_, Infallible>(response.expect("response"))
                }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move { drop(connection.await) });
        }
    });
    (url, receiver)
}

async fn posted(posts: &mut mpsc::Receiver<Posted>) -> Posted {
    tokio::time::timeout(Duration::from_secs(60), posts.recv()).await.expect("in time").expect("open")
}

#[tokio::test]
async fn webhook_retries_signs_and_stores_dead_letters() {
    let (hub, store) = hub::testing::hub(hub::Config::default());
    let dir = tempfile::tempdir().expect("dir");
    std::fs::create_dir(dir.path().join("sinks")).expect("dir");
    std::fs::write(dir.path().join("sinks/crm.json"), r#"{"version":1,"order":0}"#).expect("position");
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "whsec\n").expect("secret");
    // The first event needs two attempts; the second is refused permanently after three; the third succeeds.
    let (url, mut posts) = webhook_receiver(&[503, 200, 422, 422, 422, 200]).await;
    let text = format!(
        "kind = \"webhook\"\nname = \"crm\"\nurl = \"{url}\"\nsecret = \"file:{}\"\nheaders = {{ x-team = \"a\" }}",
        secret.display()
    );
    publish(&store, "c_1", 2);
    let running = Running::start(config(&text), &dir, &hub);
    let mut ids = Vec::new();
    for _ in 0..6 {
        let Posted { headers, body } = posted(&mut posts).await;
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["x-team"], "a");
        let signature = headers["sidetone-signature"].to_str().expect("text");
        let time = signature.split(['=', ',']).nth(1).expect("time").parse().expect("a number");
        assert_eq!(headers["sidetone-signature"], super::webhook::signature(&"whsec".to_owned().into(), time, &body));
        let event: Value = serde_json::from_slice(&body).expect("json");
        let id = headers["sidetone-event-id"].to_str().expect("text").to_owned();
        assert_eq!(id, format!("c_1:{}", event["seq"]));
        ids.push(id);
    }
    assert_eq!(ids, ["c_1:1", "c_1:1", "c_1:2", "c_1:2", "c_1:2", "c_1:3"]);
    let metrics = running.metrics.of("crm");
    running.stop().await;
    assert_eq!((metrics.delivered.get(), metrics.dead_letters.get(), metrics.retries.get()), (2, 1, 3));
    let letters = std::fs::read_to_string(dir.path().join("sinks/crm.dead.jsonl")).expect("letters");
    let letter: Value = serde_json::from_str(letters.trim()).expect("one line");
    assert_eq!((&letter["status"], &letter["event"]["seq"]), (&422.into(), &2.into()));
    let position = std::fs::read_to_string(dir.path().join("sinks/crm.json")).expect("position");
    assert_eq!(position, r#"{"version":1,"order":3}"#);
}

#[tokio::test]
async fn webhook_gets_batches_of_selected_events() {
    let (hub, store) = hub::testing::hub(hub::Config::default());
    let dir = tempfile::tempdir().expect("dir");
    std::fs::create_dir(dir.path().join("sinks")).expect("dir");
    std::fs::write(dir.path().join("sinks/crm.json"), r#"{"version":1,"order":0}"#).expect("position");
    let (url, mut posts) = webhook_receiver(&[]).await;
    publish(&store, "c_1", 5);
    publish(&store, "c_2", 5);
    store.complete(&call("c_2"));
    let text = format!(
        "kind = \"webhook\"\nname = \"crm\"\nurl = \"{url}\"\nbatch = 4\ncalls = [\"c_2\"]\ninclude = [\"turns\"]"
    );
    let running = Running::start(config(&text), &dir, &hub);
    let mut seqs = Vec::new();
    let mut sizes = Vec::new();
    while seqs.len() < 7 {
        let body: Value = serde_json::from_slice(&posted(&mut posts).await.body).expect("json");
        let events = body["events"].as_array().expect("a list");
        sizes.push(events.len());
        seqs.extend(events.iter().map(|event| (event["call_id"].to_string(), event["seq"].as_u64().expect("seq"))));
    }
    assert_eq!(sizes, [4, 3]);
    assert_eq!(seqs, (1..=7).map(|seq| ("\"c_2\"".to_owned(), seq)).collect::<Vec<_>>());
    running.stop().await;
    let position = std::fs::read_to_string(dir.path().join("sinks/crm.json")).expect("position");
    assert_eq!(position, r#"{"version":1,"order":13}"#, "what is not wanted is behind too");
}

#[tokio::test]
async fn unreachable_consumer_does_not_delay_a_shutdown() {
    let (hub, store) = hub::testing::hub(hub::Config::default());
    let dir = tempfile::tempdir().expect("dir");
    // Nothing listens at these addresses.
    for kind in
        ["kind = \"websocket\"\nurl = \"ws://127.0.0.1:1/\"", "kind = \"webhook\"\nurl = \"http://127.0.0.1:1/\""]
    {
        let config = config(kind);
        let name = config.name.clone();
        let running = Running::start(config, &dir, &hub);
        let metrics = running.metrics.of(&name);
        publish(&store, "c_1", 1);
        while metrics.retries.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.stop().await;
        assert_eq!(metrics.delivered.get(), 0);
    }
}
