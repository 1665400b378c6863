//! Tests of the protocol on real sockets, and of its scopes under random schedules.

mod all_calls;
mod lifetime;
mod protocol;
mod revoked;
mod schedules;
mod snapshots;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http_body_util::Empty;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Deps, Metrics, ViewError, Views, serve};
use crate::base::ws::{self, ClientSocket, Incoming, Upgrade};
use crate::hub::testing::{Memory, turn};
use crate::hub::{self, Hub};
use crate::protocol::Event;
use crate::turns::TurnPrivate;
use crate::types::view::View;
use crate::types::{CallId, JsonMap, Seq, Word};

fn final_turn(number: u64) -> Event {
    Event::TurnFinal { turn: turn(number, "hello there") }
}

fn subscribe(calls: Value) -> Value {
    json!({"id": "1", "type": "subscribe", "calls": calls})
}

/// Private fields of a turn's record, with one word.
fn with_word(text: &str) -> String {
    let word = Word { text: text.into(), start_ms: 0, end_ms: 5, speaker: None, confidence: None };
    let mut private = TurnPrivate::default();
    private.words = vec![word];
    json!({ "turn": private }).to_string()
}

/// The state of the call after event `upto`, built from its log.
fn fold(store: &Memory, call: &CallId, upto: Seq) -> Option<View> {
    let entry = store.entry(call)?;
    let records = store.log(call);
    let mut view = View {
        turn_count: 0,
        call_id: call.clone(),
        epoch: entry.epoch,
        seq: 0,
        status: "open",
        started_at: String::new(),
        meta: JsonMap::new(),
        turns: Vec::new(),
        streams: Vec::new(),
        insights: BTreeMap::new(),
        alerts: Vec::new(),
    };
    for record in records.iter().take_while(|record| record.seq <= upto) {
        view.seq = record.seq;
        match serde_json::from_slice::<Event>(&record.frame).expect("event") {
            Event::CallStarted { meta, .. } | Event::CallUpdated { meta } => view.meta = meta,
            Event::CallCompleted { .. } => view.status = "completed",
            Event::TurnFinal { mut turn } => {
                let private: Value = serde_json::from_slice(&record.private).unwrap_or_default();
                let private: TurnPrivate = serde_json::from_value(private["turn"].clone()).unwrap_or_default();
                turn.words = private.words;
                view.turns.push(Arc::new(turn));
            }
            Event::InsightUpdated { insight } => {
                let value = json!(insight);
                match insight.turn {
                    None => view.insights.insert(insight.analysis.clone(), value),
                    Some(turn) => {
                        let slot =
                            view.insights.entry(insight.analysis.clone()).or_insert_with(|| json!({"turns": {}}));
                        slot["turns"][turn.to_string()] = value;
                        None
                    }
                };
            }
            _ => {}
        }
    }
    Some(view)
}

struct Folded(Arc<Memory>);

impl Views for Folded {
    fn view<'a>(&'a self, call: &'a CallId) -> BoxFuture<'a, Result<Option<Arc<View>>, ViewError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(fold(&self.0, call, Seq::MAX).map(Arc::new))
        })
    }
}

fn deps(hub: &Hub, store: &Arc<Memory>) -> Deps {
    Deps {
        hub: hub.clone(),
        views: Arc::new(Folded(Arc::clone(store))),
        analyses: vec!["summary".into(), "tone".into()],
        subscribe_timeout: Duration::from_secs(10),
        ping_interval: super::PING_INTERVAL,
        subscriptions_per_socket: 3,
        calls_per_subscription: 4,
        health: watch::channel(true).1,
        metrics: Metrics::register(&mut Registry::default()),
    }
}

/// A server of the protocol on a free port.
struct Server {
    store: Arc<Memory>,
    hub: Hub,
    deps: Arc<Deps>,
    stop: CancellationToken,
    url: String,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Deps)) -> Self {
        let (hub, store) = hub::testing::hub(hub::Config { call_bytes: 4000, ring_bytes: 20_000 });
        let mut deps = deps(&hub, &store);
        change(&mut deps);
        let deps = Arc::new(deps);
        let stop = CancellationToken::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("ws://{}/v1/subscribe", listener.local_addr().expect("address"));
        tokio::spawn(accept(listener, Arc::clone(&deps), stop.clone()));
        Self { store, hub, deps, stop, url }
    }

    async fn client(&self) -> Client {
        let socket =
            ws::connect(&self.url, &http::HeaderMap::new(), 8 << 20, Duration::from_secs(60)).await.expect("connects");
        let mut client = Client { socket };
        let interval = u64::try_from(self.deps.ping_interval.as_millis()).expect("small");
        assert_eq!(client.next().await, json!({"type": "welcome", "version": 1, "ping_interval_ms": interval}));
        client
    }
}

async fn accept(listener: tokio::net::TcpListener, deps: Arc<Deps>, stop: CancellationToken) {
    while let Ok((stream, _)) = listener.accept().await {
        let (deps, stop) = (Arc::clone(&deps), stop.clone());
        tokio::spawn(async move {
            let service = service_fn(move |mut request| {
                let (deps, stop) = (Arc::clone(&deps), stop.clone());
                async move {
                    let (upgrade, response) =
                        Upgrade::new(&mut request, 1 << 20, None, Empty::<bytes::Bytes>::new).expect("an upgrade");
                    tokio::spawn(async move {
                        if let Ok(socket) = upgrade.socket().await {
                            serve(socket, deps, stop, CancellationToken::new()).await;
                        }
                    });
                    Ok::<_, Infallible>(response)
                }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            drop(connection.with_upgrades().await);
        });
    }
}

struct Client {
    socket: ClientSocket,
}

impl Client {
    async fn say(&mut self, frame: Value) {
        self.socket.send([frame.to_string().into()]).await.expect("sent");
    }

    /// The next message of any kind except pings.
    async fn incoming(&mut self) -> Incoming {
        loop {
            let incoming = tokio::time::timeout(Duration::from_secs(120), self.socket.recv()).await.expect("in time");
            match incoming.expect("a message") {
                Incoming::Ping | Incoming::Pong => {}
                other => return other,
            }
        }
    }

    async fn next(&mut self) -> Value {
        match self.incoming().await {
            Incoming::Text(text) => serde_json::from_str(&text).expect("json"),
            other => panic!("expected a text frame, found {other:?}"),
        }
    }

    /// Sends `frame` and returns the next frame.
    async fn ask(&mut self, frame: Value) -> Value {
        self.say(frame).await;
        self.next().await
    }

    async fn closed(&mut self) -> u16 {
        loop {
            match self.incoming().await {
                Incoming::Closed { code, .. } => return code,
                Incoming::Text(_) => {}
                other => panic!("expected a close, found {other:?}"),
            }
        }
    }
}
