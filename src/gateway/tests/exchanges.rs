//! Calls that are not live: answers are stored and reused, and tokens and cost are added up.

use std::collections::HashMap;

use serde_json::json;

use super::fake::{Fake, reply, stream};
use super::*;
use crate::gateway::exchanges::{Asked, Exchange, ExchangeStore, Exchanges, Sum};
use crate::llm::ResponseFormat;
use crate::types::CallId;

/// Exchanges in memory, as JSON.
#[derive(Default)]
struct InMemory(Mutex<HashMap<String, Vec<String>>>);

impl ExchangeStore for InMemory {
    fn read(&self, digest: &str) -> Result<Vec<Exchange>, String> {
        let kept = self.0.lock().expect("store");
        let texts = kept.get(digest).into_iter().flatten();
        Ok(texts.map(|text| serde_json::from_str(text).expect("an exchange")).collect())
    }

    fn add(&self, asked: &Asked, _: usize, exchange: Exchange) -> Result<Exchange, String> {
        let text = serde_json::to_string(&exchange).expect("JSON");
        self.0.lock().expect("store").entry(asked.digest.clone()).or_default().push(text);
        Ok(exchange)
    }
}

fn offline(url: &str, exchanges: &Arc<Exchanges>) -> Gateway {
    let text = format!(
        "[endpoints.e]\nprovider = \"openai_compatible\"\nbase_url = \"{url}\"\n\
         prices = [{{ model = \"v\", input = 1.0, output = 2.0 }}]\n[models.m]\ncandidates = [\"e/v\"]\nretries = 0\n"
    );
    let budget = Budget::new(None, None, 0, Box::new(|_| 0));
    Gateway::offline(config(&text), Metrics::default(), budget, Arc::clone(exchanges))
}

/// A request about the call `c` under a schema.
fn about(gateway: &Gateway, words: &str) -> Request {
    let mut asked = upstream_streamed(gateway);
    asked.chat.messages = vec![Message::text(Role::User, words)];
    let schema = json!({"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]});
    asked.chat.response_format =
        Some(ResponseFormat::JsonSchema { name: "s".into(), schema: Arc::new(schema), strict: true });
    asked.origin.call = Some(call());
    asked.origin.analysis = Some("summary".into());
    asked
}

fn call() -> CallId {
    CallId::parse("c").expect("id")
}

#[tokio::test]
async fn stored_answers_are_replayed_without_a_vendor() {
    let (good, bad) = (r#"{"a": 1}"#, r#"{"a": "x"}"#);
    let failure = reply(503, "", "{}");
    let fake = Fake::start(vec![stream(&[bad]), stream(&[good]), failure, stream(&[good])]).await;
    let store: Arc<dyn ExchangeStore> = Arc::new(InMemory::default());
    let recording = Arc::new(Exchanges::recording(Arc::clone(&store)));
    let live = offline(&fake.url, &recording);
    let first = live.complete(about(&live, "one")).await.expect("an answer after its repair");
    assert_eq!((first.value.as_ref(), first.provenance.attempts), (Some(&json!({"a": 1})), 2));
    // The same request twice: the vendor fails, then answers.
    let failed = live.complete(about(&live, "two")).await.expect_err("a failure");
    let second = live.complete(about(&live, "two")).await.expect("an answer");
    assert_eq!(fake.requests(), 4);

    let replaying = Arc::new(Exchanges::replaying(Arc::clone(&store)));
    let dead = offline("http://127.0.0.1:9/v1", &replaying);
    let again = dead.complete(about(&dead, "one")).await.expect("the kept answer");
    let essence =
        |answer: &Answer| (answer.text.clone(), answer.usage, answer.cost_usd, answer.waited, answer.first_token);
    assert_eq!(essence(&again), essence(&first));
    assert_eq!(again.provenance.attempts, 2);
    let failed_again = dead.complete(about(&dead, "two")).await.expect_err("the kept failure");
    assert_eq!(
        (failed_again.code(), failed_again.message(), failed_again.waited()),
        (failed.code(), failed.message(), failed.waited())
    );
    assert_eq!(essence(&dead.complete(about(&dead, "two")).await.expect("the kept answer")), essence(&second));
    assert_eq!(replaying.tally(&call()), recording.tally(&call()));
    let (tally, fault) = replaying.tally(&call());
    assert_eq!((tally.requests, tally.attempts, fault), (4, 4, None));
    assert_eq!((tally.input, tally.output), (Sum(Some(27)), Sum(Some(6))));
    let waited = replaying.take_waited(&call());
    assert!(waited > Duration::ZERO && waited == recording.take_waited(&call()));
    assert_eq!(replaying.take_waited(&call()), Duration::ZERO);
}

#[tokio::test]
async fn request_without_a_stored_answer_is_named() {
    let store: Arc<dyn ExchangeStore> = Arc::new(InMemory::default());
    let exchanges = Arc::new(Exchanges::replaying(store));
    let dead = offline("http://127.0.0.1:9/v1", &exchanges);
    let error = dead.complete(about(&dead, "one")).await.expect_err("nothing is kept");
    let (_, fault) = exchanges.tally(&call());
    let fault = fault.expect("a fault");
    assert!(fault.starts_with("summary: the request ") && fault.ends_with(" to e/v is not recorded"), "{fault}");
    assert_eq!((error.message(), error.temporary()), (fault.as_str(), false));
}

#[tokio::test]
async fn recording_asks_only_for_answers_that_are_not_stored() {
    let fake = Fake::start(vec![stream(&[r#"{"a": 7}"#])]).await;
    let store: Arc<dyn ExchangeStore> = Arc::new(InMemory::default());
    for _ in 0..2 {
        let gateway = offline(&fake.url, &Arc::new(Exchanges::recording(Arc::clone(&store))));
        let answer = gateway.complete(about(&gateway, "one")).await.expect("an answer");
        assert_eq!(answer.value, Some(json!({"a": 7})));
    }
    assert_eq!(fake.requests(), 1);
    let other = offline(&fake.url, &Arc::new(Exchanges::live()));
    other.complete(about(&other, "one")).await.expect("an answer");
    assert_eq!(fake.requests(), 2, "without a store every request is asked");
}

#[tokio::test]
async fn cost_without_a_price_is_unknown() {
    let fake = Fake::start(vec![stream(&[r#"{"a": 7}"#])]).await;
    let exchanges = Arc::new(Exchanges::live());
    let text = format!(
        "[endpoints.e]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\n[models.m]\ncandidates = [\"e/v\"]\n",
        fake.url
    );
    let budget = Budget::new(None, None, 0, Box::new(|_| 0));
    let gateway = Gateway::offline(config(&text), Metrics::default(), budget, Arc::clone(&exchanges));
    gateway.complete(about(&gateway, "one")).await.expect("an answer");
    let (tally, _) = exchanges.tally(&call());
    assert_eq!((tally.cost, tally.input), (Sum(None), Sum(Some(9))));
}
