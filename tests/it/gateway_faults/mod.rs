//! Faults of vendors, one row for each, streamed and not: the caller gets an answer or one clear error in time, the
//! next candidate is asked if possible, and the ledger agrees with what the vendor received.

mod answers;
mod fault;
mod hang_up;
mod rows;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::fault::{Expect, Fault};
use crate::support::daemon::Daemon;
use crate::support::http::Reply;
use crate::support::ledger::{self, Row};
use crate::support::vendor::{Dialect, Step, Tokens, Vendor, chunk, stream_head};
use crate::support::{Json, json, shared};

/// Timeouts that are short enough for a test and long enough for a busy machine.
const CLOCKS: &str = "connect_timeout_ms = 2000\nheader_timeout_ms = 1500\nfirst_token_timeout_ms = 1500\n\
                      between_tokens_timeout_ms = 1500\ntotal_timeout_ms = 5000\nretries = 1\n";
/// Analyses use a model that is not one of the vendors under test.
const QUIET: &str = "[gateway]\ndefault_route = \"quiet\"\n\
                     [routes.quiet]\nvariants = [{name = \"a\", model = \"local\"}]\n";
/// No request may take longer than its deadline; delays of a busy machine are added to it.
const DEADLINE: Duration = Duration::from_secs(5 + 5);
/// Number of concurrent requests.
const AT_ONCE: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai() {
    matrix(Dialect::OpenAi).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anthropic() {
    matrix(Dialect::Anthropic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn google() {
    matrix(Dialect::Google).await;
}

/// A request to send.
#[derive(Clone)]
struct Case {
    fault: Arc<Fault>,
    streamed: bool,
    /// Set if a healthy candidate comes after the faulty one.
    rescued: bool,
}

impl Case {
    fn model(&self) -> String {
        let how = if self.streamed { "streamed" } else { "plain" };
        format!("{}-{how}-{}", self.fault.name, if self.rescued { "rescued" } else { "alone" })
    }

    fn expect(&self) -> &Expect {
        if self.streamed { &self.fault.streamed } else { &self.fault.plain }
    }
}

async fn matrix(dialect: Dialect) {
    let _machine = shared().await;
    let faults: Vec<Arc<Fault>> = rows::all(dialect).into_iter().map(Arc::new).collect();
    let all = faults.clone();
    let bad = Vendor::start(dialect, move |asked| {
        let fault = all.iter().find(|fault| Some(fault.name) == asked.model.rsplitn(3, '-').nth(2));
        fault.expect("a row of this name").reply(dialect, asked)
    })
    .await;
    let good = Vendor::good(Dialect::OpenAi).await;
    let mut config = bad.endpoint("bad", "") + &good.endpoint("good", "") + &rows::endpoints(dialect).await + QUIET;
    let mut cases = Vec::new();
    for fault in &faults {
        for (streamed, expect) in [(true, &fault.streamed), (false, &fault.plain)] {
            if matches!(expect, Expect::Skip) {
                continue;
            }
            for rescued in [false, true] {
                let case = Case { fault: Arc::clone(fault), streamed, rescued };
                let model = case.model();
                let second = if rescued { ", \"good/ok\"" } else { "" };
                config +=
                    &format!("[models.\"{model}\"]\ncandidates = [\"{}/{model}\"{second}]\n{CLOCKS}\n", fault.endpoint);
                cases.push(case);
            }
        }
    }
    let daemon = Arc::new(Daemon::start(&config).await);
    let room = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut asking = tokio::task::JoinSet::new();
    for case in cases.clone() {
        let (daemon, room) = (Arc::clone(&daemon), Arc::clone(&room));
        asking.spawn(async move {
            let _place = room.acquire().await.expect("open");
            let began = Instant::now();
            let body = json!({"model":case.model(),"stream":case.streamed,"stream_options":{"include_usage":true},
                "messages":[{"role":"user","content":"hello"}]});
            let reply = daemon.post("/v1/chat/completions", &body).await;
            (case, reply, began.elapsed())
        });
    }
    let mut wrong = Vec::new();
    let mut rows_expected = 0;
    while let Some(done) = asking.join_next().await {
        let (case, reply, took) = done.expect("join");
        let model = case.model();
        if took > DEADLINE {
            wrong.push(format!("{model}: took {took:?}"));
        }
        let judged = judge(&case, &reply);
        rows_expected += case.rows();
        let rows = ledger::settled(&daemon.dir, case.rows(), |row| row.model == model).await;
        let booked = judged.and_then(|()| audit(&case, dialect, &bad, &rows));
        if let Err(why) = booked {
            wrong.push(format!("{model}: {why}\n    {} {}\n    {rows:?}", reply.status, cut(&reply.text())));
        }
    }
    wrong.sort();
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    // The bill has the same values as the rows.
    let usage = daemon.get_json("/v1/usage?group_by=endpoint,outcome").await;
    let billed: u64 = usage["rows"].as_array().expect("rows").iter().filter_map(|row| row["attempts"].as_u64()).sum();
    assert_eq!(billed, rows_expected as u64, "{usage}");
    let reached = billed - usage_of(&usage, "good") - usage_of(&usage, "closed") - usage_of(&usage, "tls");
    assert_eq!(reached - usage_of(&usage, "untrusted"), bad.count(), "requests that the vendor saw; {usage}");
    assert_eq!(usage_of(&usage, "good"), good.count());
    println!("{dialect:?}: {} cases, {billed} attempts", cases.len());
}

fn usage_of(usage: &Json, endpoint: &str) -> u64 {
    let rows = usage["rows"].as_array().expect("rows").iter().filter(|row| row["endpoint"] == endpoint);
    rows.filter_map(|row| row["attempts"].as_u64()).sum()
}

fn cut(text: &str) -> String {
    text.chars().take(700).collect()
}

impl Case {
    /// Number of attempts that must be in the ledger.
    fn rows(&self) -> usize {
        match self.expect() {
            Expect::Skip => 0,
            Expect::Answer(_) | Expect::Broken { .. } => 1,
            // A healthy second candidate is asked before the first one again.
            Expect::Fails { .. } if self.rescued => 2,
            Expect::Fails { attempts, .. } => *attempts,
        }
    }
}

/// Checks the caller's result.
fn judge(case: &Case, reply: &Reply) -> Result<(), String> {
    let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    match case.expect() {
        Expect::Skip => Ok(()),
        Expect::Answer(text) => answered(case, reply, text, if case.fault.endpoint == "bad" { "bad" } else { "good" }),
        Expect::Fails { .. } if case.rescued => answered(case, reply, "fine", "good"),
        Expect::Fails { status, code, retry_after, attempts } => {
            check(reply.status == *status, &format!("expected status {status}"))?;
            let body: Json = serde_json::from_slice(&reply.body).map_err(|_| "the error is no JSON".to_owned())?;
            error_shape(&body["error"], code, case)?;
            let listed = body["error"]["attempts"].as_array().map_or(0, Vec::len);
            check(listed == *attempts, &format!("expected {attempts} in error.attempts"))?;
            match (reply.header("retry-after"), retry_after) {
                (None, None) => Ok(()),
                (Some(said), Some(range)) => {
                    let within = said.parse::<u64>().is_ok_and(|said| range.contains(&said));
                    check(within, &format!("retry-after {said}, expected {range:?}"))
                }
                (said, _) => Err(format!("retry-after is {said:?}, expected {retry_after:?}")),
            }
        }
        Expect::Broken { code } => {
            check(reply.status == 200, "expected a stream")?;
            let events = events(reply)?;
            check(!events.iter().any(|event| event == "[DONE]"), "[DONE] after a broken stream")?;
            let last: Json = events.last().and_then(|last| serde_json::from_str(last).ok()).unwrap_or_default();
            check(!text_of(&events).is_empty(), "nothing of what had come")?;
            error_shape(&last["error"], code, case)
        }
    }
}

fn answered(case: &Case, reply: &Reply, text: &str, endpoint: &str) -> Result<(), String> {
    if reply.status != 200 || reply.header("sidetone-endpoint") != Some(endpoint) {
        return Err(format!("expected an answer of {endpoint}, found {:?}", reply.header("sidetone-endpoint")));
    }
    let said = if case.streamed {
        let events = events(reply)?;
        let done = events.iter().filter(|event| *event == "[DONE]").count();
        if done != 1 || events.last().map(String::as_str) != Some("[DONE]") {
            return Err(format!("{done} times [DONE]"));
        }
        text_of(&events)
    } else {
        reply.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    };
    if said == text { Ok(()) } else { Err(format!("said {:?} of {} bytes", cut(&said), said.len())) }
}

fn error_shape(error: &Json, code: &str, case: &Case) -> Result<(), String> {
    if error["code"] != code {
        return Err(format!("expected code {code}"));
    }
    let fields = ["message", "type"].iter().all(|field| error[field].as_str().is_some_and(|text| !text.is_empty()));
    if !fields || error.get("param").is_none() {
        return Err("no error of OpenAI's shape".to_owned());
    }
    let attempts = error["attempts"].as_array().ok_or("no attempts")?;
    let last = attempts.last().ok_or("no attempts")?;
    let named = last["endpoint"] == case.fault.endpoint && last["model"] == case.model() && last["code"] == code;
    if !named || !last["message"].is_string() || last.get("status").is_none() {
        return Err("the last attempt does not say who failed and how".to_owned());
    }
    Ok(())
}

/// The data of all events; an error if the body is not an event stream.
fn events(reply: &Reply) -> Result<Vec<String>, String> {
    if reply.header("content-type").is_none_or(|kind| !kind.starts_with("text/event-stream")) {
        return Err("no event stream".to_owned());
    }
    let text = String::from_utf8(reply.body.clone()).map_err(|_| "no UTF-8".to_owned())?;
    Ok(text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect())
}

fn text_of(events: &[String]) -> String {
    let parsed = events.iter().filter_map(|event| serde_json::from_str::<Json>(event).ok());
    parsed.filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}

/// Compares the ledger with what the vendor received.
fn audit(case: &Case, dialect: Dialect, bad: &Vendor, rows: &[Row]) -> Result<(), String> {
    if rows.len() != case.rows() {
        return Err(format!("expected {} rows", case.rows()));
    }
    let asked = bad.asked_for(&case.model());
    let faulty: Vec<&Row> = rows.iter().filter(|row| row.endpoint == case.fault.endpoint).collect();
    if case.fault.endpoint == "bad" && asked.len() != faulty.len() {
        return Err(format!("{} requests at the vendor", asked.len()));
    }
    let (outcome, code) = match case.expect() {
        Expect::Skip => return Ok(()),
        Expect::Answer(_) => ("ok", None),
        Expect::Fails { code, .. } => ("failed", Some(*code)),
        Expect::Broken { code } => ("partial", Some(*code)),
    };
    if let Some(row) = faulty.iter().find(|row| row.outcome != outcome || row.code.as_deref() != code) {
        return Err(format!("expected {outcome} {code:?}, found {} {:?}", row.outcome, row.code));
    }
    if rows.iter().any(|row| row.endpoint == "good" && (row.outcome != "ok" || row.why != "failover")) {
        return Err("the healthy candidate's row".to_owned());
    }
    // Tokens are those that the vendor had reported so far, or unknown: never 0 by default.
    for (row, asked) in faulty.iter().zip(&asked) {
        let told = Tokens::of(asked);
        let input = match (outcome, dialect) {
            ("ok", _) => Some(told.input),
            ("partial", Dialect::Anthropic | Dialect::Google) => Some(told.input),
            _ => None,
        };
        if row.input != input && !(outcome == "failed" && row.input == Some(told.input)) {
            return Err(format!("expected {input:?} tokens of input, found {:?}", row.input));
        }
        if outcome == "ok" && (row.output, row.cached) != (Some(told.output), Some(told.cached)) {
            return Err(format!("expected {told:?}"));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_alive_comments_do_not_restart_the_token_timeout() {
    let _machine = shared().await;
    let vendor = Vendor::start(Dialect::OpenAi, |asked| {
        let text = Dialect::OpenAi.text("so", Tokens::of(asked));
        vec![stream_head(), chunk(text), Step::Hang]
    })
    .await;
    // The gateway's own comment comes after 5 s.
    let config = vendor.endpoint("e", "")
        + QUIET
        + "[models.m]\ncandidates = [\"e/v\"]\nbetween_tokens_timeout_ms = 6000\ntotal_timeout_ms = 25000\n";
    let daemon = Daemon::start(&config).await;
    let body = json!({"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]});
    let reply = daemon.post("/v1/chat/completions", &body).await;
    assert!(reply.text().contains(": keep-alive"), "{}", reply.text());
    let events = events(&reply).expect("a stream");
    let last: Json = serde_json::from_str(events.last().expect("an event")).expect("JSON");
    assert_eq!(last["error"]["attempts"][0]["message"], "no further token within 6000 ms", "{last}");
}
