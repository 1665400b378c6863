//! Whole answers of vendors that are asked for a stream.

use std::time::{Duration, Instant};

use serde_json::json;

use super::fake::{Fake, Step, chunk, data, end, plain, reply, sse_head, stream, text};
use super::*;
use crate::llm::ResponseFormat;

fn under_schema(gateway: &Gateway) -> Request {
    let mut asked = upstream_streamed(gateway);
    let schema = json!({"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]});
    asked.chat.response_format =
        Some(ResponseFormat::JsonSchema { name: "s".into(), schema: Arc::new(schema), strict: true });
    asked
}

#[tokio::test]
async fn stream_becomes_an_answer_with_deltas_and_a_record() {
    let fake = Fake::start(vec![stream(&["Hel", "lo"])]).await;
    let (gateway, tape) = over(&[&fake], "");
    let deltas = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&deltas);
    let mut asked = upstream_streamed(&gateway);
    asked.deltas =
        Some(Box::new(move |delta| sink.lock().expect("deltas").push((delta.offset, delta.text.to_owned()))));
    let answer = gateway.complete(asked).await.expect("answer");
    assert_eq!(answer.text, "Hello");
    assert_eq!(
        (&*answer.provenance.endpoint, &*answer.provenance.model, &*answer.provenance.vendor_model),
        ("e0", "m", "v")
    );
    assert_eq!(answer.provenance.attempts, 1);
    assert_eq!(answer.usage, TokenUsage { input: Some(9), cached: Some(4), output: Some(2) });
    assert!(answer.first_token.is_some());
    assert_eq!(*deltas.lock().expect("deltas"), [(0, "Hel".to_owned()), (3, "lo".to_owned())]);
    assert_eq!(tape.outcomes(), [("ok", None)]);
    let sent = fake.body(0);
    assert_eq!(sent["stream"], true);
    assert_eq!(sent["stream_options"], json!({"include_usage":true}));
}

#[tokio::test]
async fn connection_is_reused_and_a_plain_answer_is_accepted() {
    let fake = Fake::start(vec![stream(&["a"]), stream(&["b"]), plain("c")]).await;
    let (gateway, _) = over(&[&fake], "");
    for expected in ["a", "b", "c"] {
        let answer = gateway.complete(upstream_streamed(&gateway)).await.expect("answer");
        assert_eq!(answer.text, expected);
        assert_eq!(answer.first_token.is_none(), expected == "c");
    }
    assert_eq!(fake.seen.lock().expect("seen").connections, 1);
}

#[tokio::test]
async fn failure_before_and_in_a_stream_moves_on() {
    let bad: Vec<(&str, fake::Reply)> = vec![
        ("upstream_error", reply(500, "", "{}")),
        ("upstream_error", reply(503, "", "<html>")),
        ("upstream_error", reply(529, "", r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#)),
        ("rate_limited", reply(429, "retry-after: 60\r\n", "{}")),
        ("quota_exhausted", reply(429, "", r#"{"error":{"code":"insufficient_quota","message":"m"}}"#)),
        ("upstream_auth", reply(401, "", "{}")),
        ("invalid_request", reply(400, "", "{}")),
        ("invalid_request", reply(413, "", "{}")),
        ("model_not_found", reply(404, "", "{}")),
        ("malformed", reply(200, "", "<html>login</html>")),
        ("malformed", reply(200, "", "{\"choices\":[{\"mess")),
        ("timeout", vec![Step::Hang]),
        ("timeout", vec![sse_head(), Step::Hang]),
        ("timeout", vec![sse_head(), text("x"), Step::Hang]),
        ("upstream_error", vec![Step::Close]),
        ("upstream_error", vec![Step::Reset]),
        ("interrupted", vec![sse_head(), text("x"), Step::Close]),
        ("interrupted", vec![sse_head(), text("x"), Step::Reset]),
        ("interrupted", vec![sse_head(), text("x"), end()]),
        ("upstream_error", vec![sse_head(), data(r#"{"error":{"message":"Overloaded","code":503}}"#), end()]),
        ("upstream_error", vec![sse_head(), text("x"), data(r#"{"error":{"message":"Overloaded"}}"#), end()]),
        ("malformed", vec![sse_head(), data("{nonsense"), end()]),
    ];
    for (code, first) in bad {
        let broken = Fake::start(vec![first.clone()]).await;
        let good = Fake::start(vec![stream(&["fine"])]).await;
        let model = format!("retries = 0\n{}", if code == "timeout" { SHORT } else { "" });
        let (gateway, tape) = over(&[&broken, &good], &model);
        let mut deltas = String::new();
        let answer =
            gateway.complete(upstream_streamed(&gateway)).await.unwrap_or_else(|error| panic!("{first:?}: {error}"));
        deltas.push_str(&answer.text);
        assert_eq!(
            (deltas.as_str(), &*answer.provenance.endpoint, answer.provenance.attempts),
            ("fine", "e1", 2),
            "{first:?}"
        );
        // The HTTP client may retry a pooled connection that fails before its first byte.
        assert!(broken.requests() >= 1);
        let outcomes = tape.outcomes();
        assert_eq!(outcomes.len(), 2, "{first:?}");
        assert_eq!(outcomes[0].1, Some(code), "{first:?}");
        assert_eq!(tape.whys(), ["first", "failover"]);
        // Without another candidate, the same failure is the request's error.
        let (gateway, _) = over(&[&broken], &model);
        let error = gateway.complete(upstream_streamed(&gateway)).await.expect_err("fails");
        assert_eq!(error.code().as_str(), code, "{first:?}");
        assert_eq!(error.attempts().len(), 1);
    }
}

#[tokio::test]
async fn refused_connection_is_retried_then_an_error() {
    let fake = Fake::start(vec![plain("x")]).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let (gateway, tape) = gateway(&format!(
        "[endpoints.e0]\nprovider = \"openai_compatible\"\nbase_url = \"http://{free}/v1\"\n[models.m]\ncandidates = [\"e0/v\"]"
    ));
    let error = gateway.complete(upstream_streamed(&gateway)).await.expect_err("refused");
    assert_eq!((error.code().as_str(), error.temporary(), error.attempts().len()), ("refused", true, 3), "{error:?}");
    assert_eq!(tape.whys(), ["first", "retry", "retry"]);
    drop(fake);
}

#[tokio::test]
async fn malformed_line_and_split_event_do_not_end_a_stream() {
    let mut steps = vec![sse_head(), chunk("data: {bad\n\n: comment\n\n")];
    steps.push(chunk("data: {\"choices\":[{\"index\":0,"));
    steps.push(Step::Wait(Duration::from_millis(5)));
    steps.push(chunk("\"delta\":{\"content\":\"gr\u{fc}\u{df}\"}}]}\r\n\r\n"));
    steps.extend(fake::finish());
    let fake = Fake::start(vec![steps]).await;
    let (gateway, _) = over(&[&fake], "");
    assert_eq!(gateway.complete(upstream_streamed(&gateway)).await.expect("answer").text, "gr\u{fc}\u{df}");
}

#[tokio::test]
async fn refused_schema_mode_is_replaced_by_a_simpler_one_and_remembered() {
    for (status, times) in [(400, 1), (500, 2)] {
        // A server error may have another cause: the lesser mode is remembered only the second time.
        let mut script = Vec::new();
        for _ in 0..times {
            script.extend([reply(status, "", "{}"), plain("```json\n{\"a\":1,}\n```")]);
        }
        script.push(stream(&["{\"a\":", "2}"]));
        let fake = Fake::start(script).await;
        let (gateway, tape) = over(&[&fake], "");
        for time in 0..times {
            let answer = gateway.complete(under_schema(&gateway)).await.expect("answer");
            assert_eq!((answer.text.as_str(), answer.provenance.attempts), ("{\"a\":1}", 2));
            assert_eq!(fake.body(2 * time)["response_format"]["type"], "json_schema");
            assert_eq!(fake.body(2 * time + 1)["response_format"]["type"], "json_object");
            assert_eq!(tape.whys()[2 * time..], ["first", "schema_step"]);
        }
        let answer = gateway.complete(under_schema(&gateway)).await.expect("answer");
        assert_eq!((answer.text.as_str(), answer.provenance.attempts), ("{\"a\":2}", 1));
        assert_eq!(fake.body(2 * times)["response_format"]["type"], "json_object");
    }
}

#[tokio::test]
async fn schema_mode_that_worked_is_kept_after_a_server_error() {
    let good = || stream(&["{\"a\":", "2}"]);
    let fake = Fake::start(vec![good(), reply(500, "", "{}"), good()]).await;
    let (gateway, tape) = over(&[&fake], "");
    for _ in 0..2 {
        assert_eq!(gateway.complete(under_schema(&gateway)).await.expect("answer").text, "{\"a\":2}");
    }
    assert_eq!(tape.whys(), ["first", "first", "retry"]);
    assert_eq!(fake.body(2)["response_format"]["type"], "json_schema");
}

#[tokio::test]
async fn simpler_schema_mode_whose_answer_is_invalid_is_not_remembered() {
    let good = || stream(&["{\"a\":2}"]);
    let fake = Fake::start(vec![reply(500, "", "{}"), stream(&["no"]), good()]).await;
    let (gateway, tape) = over(&[&fake], "");
    for _ in 0..2 {
        assert_eq!(gateway.complete(under_schema(&gateway)).await.expect("answer").text, "{\"a\":2}");
    }
    assert_eq!(tape.whys(), ["first", "schema_step", "repair", "first"]);
    for asked in [0, 2, 3] {
        assert_eq!(fake.body(asked)["response_format"]["type"], "json_schema", "request {asked}");
    }
}

#[tokio::test]
async fn invalid_answer_gets_one_repair_round_then_an_error() {
    let fake = Fake::start(vec![stream(&["{\"a\":\"x\"}"]), stream(&["{\"a\":3}"])]).await;
    let (gateway, tape) = over(&[&fake], "");
    let answer = gateway.complete(under_schema(&gateway)).await.expect("answer");
    assert_eq!((answer.text.as_str(), answer.provenance.attempts, answer.usage.input), ("{\"a\":3}", 2, Some(18)));
    assert_eq!(tape.whys(), ["first", "repair"]);
    let messages = fake.body(1)["messages"].as_array().cloned().expect("messages");
    assert_eq!(messages.len(), 3);
    assert_eq!(messages[1]["content"], "{\"a\":\"x\"}");

    fake.script(vec![stream(&["no"])]);
    let error = gateway.complete(under_schema(&gateway)).await.expect_err("mismatch");
    assert_eq!((error.code().as_str(), error.temporary()), ("schema_mismatch", true));
    let attempts: Vec<_> = error.attempts().iter().map(|failed| (failed.status, failed.code, failed.why)).collect();
    let mismatch = |why| (Some(200), Code::SchemaMismatch, Some(why));
    assert_eq!(attempts, [mismatch(Why::First), mismatch(Why::Repair)]);
    assert_eq!(fake.requests(), 4);
}

#[tokio::test]
async fn dropped_request_is_aborted_upstream_at_once() {
    let fake = Fake::start(vec![vec![sse_head(), text("x"), Step::Hang]]).await;
    let (gateway, tape) = over(&[&fake], "");
    let (started, has_started) = tokio::sync::oneshot::channel();
    let mut started = Some(started);
    let mut asked = upstream_streamed(&gateway);
    asked.deltas = Some(Box::new(move |_| {
        if let Some(started) = started.take() {
            let _ = started.send(());
        }
    }));
    let running = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.complete(asked).await }
    });
    has_started.await.expect("started");
    running.abort();
    aborted(&fake, 1).await;
    let _ = running.await;
    assert_eq!(tape.outcomes(), [("aborted", None)]);
}

#[tokio::test]
async fn open_breaker_fails_fast_and_lets_one_probe_through() {
    let fake = Fake::start(vec![reply(500, "", "{}")]).await;
    let (gateway, tape) = over(&[&fake], "retries = 0");
    for _ in 0..5 {
        assert_eq!(
            gateway.complete(upstream_streamed(&gateway)).await.expect_err("500").code().as_str(),
            "upstream_error"
        );
    }
    let error = gateway.complete(upstream_streamed(&gateway)).await.expect_err("open");
    assert_eq!((error.code().as_str(), error.temporary()), ("upstream_error", true));
    assert!(error.retry_after().is_some());
    assert_eq!((fake.requests(), tape.outcomes().len()), (5, 5));
    fake.script(vec![plain("well")]);
    tokio::time::sleep(Duration::from_millis(2050)).await;
    let answer = gateway.complete(upstream_streamed(&gateway)).await.expect("probe");
    assert_eq!(answer.text, "well");
    assert_eq!(gateway.complete(upstream_streamed(&gateway)).await.expect("closed").text, "well");
}

#[tokio::test]
async fn deadline_is_shared_by_all_attempts() {
    let fake = Fake::start(vec![vec![Step::Hang]]).await;
    // It would take eight times a second if each candidate had its own deadline.
    let (gateway, _) = over(&[&fake; 8], "header_timeout_ms = 1000");
    let mut asked = upstream_streamed(&gateway);
    asked.deadline = Some(Duration::from_millis(1_500));
    let started = Instant::now();
    let error = gateway.complete(asked).await.expect_err("timeout");
    assert_eq!((error.code().as_str(), error.attempts().len()), ("timeout", 2));
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[tokio::test]
async fn max_concurrency_refuses_and_is_named() {
    let fake = Fake::start(vec![vec![sse_head(), text("x"), Step::Hang]]).await;
    let (gateway, _) = gateway(&format!(
        "[endpoints.e0]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\nmax_concurrency = 1\n[models.m]\n\
         candidates = [\"e0/v\"]\nretries = 0",
        fake.url
    ));
    let first = tokio::spawn({
        let gateway = gateway.clone();
        let asked = upstream_streamed(&gateway);
        async move { gateway.complete(asked).await }
    });
    while fake.requests() == 0 {
        tokio::task::yield_now().await;
    }
    let error = gateway.complete(upstream_streamed(&gateway)).await.expect_err("full");
    assert_eq!(error.code().as_str(), "overloaded");
    assert!(error.attempts()[0].message.contains("endpoints.e0.max_concurrency is 1"), "{error:?}");
    assert_eq!(fake.requests(), 1);
    first.abort();
}

#[tokio::test]
async fn implausible_token_counts_are_unknown_and_counted() {
    let usage = r#""usage":{"prompt_tokens":18446744073709551615,"completion_tokens":2}"#;
    let ended = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let counted = format!(r#"{{"choices":[],{usage}}}"#);
    let whole =
        format!(r#"{{"id":"x","choices":[{{"index":0,"message":{{"content":"b"}},"finish_reason":"stop"}}],{usage}}}"#);
    let streamed = vec![sse_head(), text("a"), data(ended), data(&counted), data("[DONE]"), end()];
    let fake = Fake::start(vec![streamed, reply(200, "", &whole)]).await;
    let (gateway, tape) = over(&[&fake], "");
    for expected in ["a", "b"] {
        let answer = gateway.complete(upstream_streamed(&gateway)).await.expect("answer");
        assert_eq!((&*answer.text, answer.usage.input, answer.usage.output), (expected, None, Some(2)));
    }
    let rows: Vec<_> = tape.done.lock().expect("tape").iter().map(|done| (done.input, done.output)).collect();
    assert_eq!(rows, [(None, Some(2)); 2]);
    let endpoint = metrics::EndpointLabels { endpoint: "e0".into() };
    assert_eq!(gateway.inner.shared.metrics.implausible.get_or_create(&endpoint).get(), 2);
}

#[tokio::test]
async fn analysis_is_answered_by_the_embedded_provider_only_if_it_names_a_method() {
    use crate::llm::local::Method;

    let (gateway, _) = gateway("");
    let conversation = json!({"turns": [{"speaker": "A", "text": "This is awful!"}]});
    let spec = transcript::Spec::read(conversation).expect("turns");
    let transcript::Source::Turns(turns) = spec.source else { panic!("turns") };
    let turns = Arc::new(turns);
    let asked = |method| {
        let chat = ChatRequest { messages: vec![Message::text(Role::User, "hi")], ..ChatRequest::default() };
        let mut request = Request::of_analysis(gateway.local(), chat, "translation".into());
        let turns = Arc::clone(&turns);
        request.transcript = Some(Arc::new(move || Arc::clone(&turns)));
        request.local = method;
        gateway.complete(request)
    };
    let error = asked(None).await.expect_err("no method");
    assert_eq!((error.code(), error.temporary()), (Code::Unsupported, false));
    assert!(error.message().contains("analysis \"translation\""), "{error}");
    let answer = asked(Some(Method::Mood)).await.expect("an answer");
    assert!(answer.text.contains("negative") && answer.degraded, "{}", answer.text);
}
