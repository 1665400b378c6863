//! The gateway against scripted servers on real sockets.

mod balance;
mod budgets;
mod complete;
mod exchanges;
pub(crate) mod fake;
mod forms;
mod hedging;
mod parts;
mod prompt_cache;
mod rates;
/// The testkit's server, which black-box tests use too.
#[path = "../../../tests/support/socket.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is made for the testkit")]
mod socket;
mod streams;
mod thinking;
mod transport;
mod vendors;
mod whole;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;
use crate::base::settings::{Problems, Section};
use crate::llm::{ChatRequest, Message, Role};
use crate::types::{AttemptBegun, AttemptDone, TokenUsage, Why};

/// How long a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Records every report.
#[derive(Default)]
pub(crate) struct Tape {
    pub(crate) begun: Mutex<Vec<AttemptBegun>>,
    pub(crate) done: Mutex<Vec<AttemptDone>>,
}

impl Recorder for Tape {
    fn begun(&self, attempt: AttemptBegun) {
        self.begun.lock().expect("tape").push(attempt);
    }
    fn done(&self, attempt: AttemptDone) {
        self.done.lock().expect("tape").push(attempt);
    }
}

impl Tape {
    pub(crate) fn outcomes(&self) -> Vec<(&'static str, Option<&'static str>)> {
        self.done.lock().expect("tape").iter().map(|done| (done.outcome.as_str(), done.code)).collect()
    }

    pub(crate) fn whys(&self) -> Vec<&'static str> {
        self.begun.lock().expect("tape").iter().map(|begun| begun.why.as_str()).collect()
    }
}

pub(crate) fn config(text: &str) -> Config {
    let table: toml::Table = toml::from_str(text).expect("TOML");
    let mut problems = Problems::default();
    let mut root = Section::new("", Some(toml::Value::Table(table)), &mut problems);
    let config = Config::read(&mut root);
    root.finish();
    assert!(problems.is_empty(), "{:?}", problems.into_vec());
    config
}

pub(crate) fn gateway(text: &str) -> (Gateway, Arc<Tape>) {
    let tape = Arc::new(Tape::default());
    let recorder: Arc<dyn Recorder> = Arc::clone(&tape) as _;
    (Gateway::recorded(config(text), Metrics::default(), recorder, None).expect("gateway"), tape)
}

/// Timeouts of a model that is meant to run into them.
pub(crate) const SHORT: &str = "header_timeout_ms = 300\nfirst_token_timeout_ms = 300\nbetween_tokens_timeout_ms = 300";

/// A gateway with one model `m` over the fakes, in order; no timeout occurs by chance, however busy the machine is.
pub(crate) fn over(fakes: &[&fake::Fake], extra: &str) -> (Gateway, Arc<Tape>) {
    limited(fakes, &[], extra)
}

/// The same, with further settings for each endpoint.
pub(crate) fn limited(fakes: &[&fake::Fake], limits: &[&str], extra: &str) -> (Gateway, Arc<Tape>) {
    let mut text = String::new();
    for (index, fake) in fakes.iter().enumerate() {
        text.push_str(&format!(
            "[endpoints.e{index}]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\n{}\n",
            fake.url,
            limits.get(index).unwrap_or(&""),
        ));
    }
    let candidates: Vec<String> = (0..fakes.len()).map(|index| format!("\"e{index}/v\"")).collect();
    let candidates = candidates.join(", ");
    let timeouts =
        ["connect", "header", "first_token", "between_tokens", "total"].map(|clock| format!("{clock}_timeout_ms"));
    let long = timeouts.iter().filter(|clock| !extra.contains(*clock)).map(|clock| format!("{clock} = 60000\n"));
    text.push_str(&format!("[models.m]\ncandidates = [{candidates}]\n{}{extra}", long.collect::<String>()));
    gateway(&text)
}

/// Waits until the fake has seen this many aborted requests.
pub(crate) async fn aborted(fake: &fake::Fake, count: usize) {
    let since = Instant::now();
    while fake.seen.lock().expect("seen").aborted < count {
        assert!(since.elapsed() < PATIENCE, "never aborted");
        tokio::task::yield_now().await;
    }
}

/// A client's request.
pub(crate) fn request(gateway: &Gateway) -> Request {
    let chat = ChatRequest { messages: vec![Message::text(Role::User, "hi")], ..ChatRequest::default() };
    Request::new(gateway.resolve("m", "k").expect("resolved"), chat)
}

/// A request like those of the daemon itself: the vendor is asked for a stream.
pub(crate) fn upstream_streamed(gateway: &Gateway) -> Request {
    let mut request = request(gateway);
    request.chat.stream = true;
    request.chat.include_usage = true;
    request
}

/// Opens a stream of the request.
pub(crate) async fn open(gateway: &Gateway, request: Request) -> Result<Stream, GatewayError> {
    gateway.stream(request, &AtomicBool::new(false)).await
}
