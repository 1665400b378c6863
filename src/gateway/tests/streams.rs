//! Streams and plain answers for clients.

use std::time::{Duration, Instant};

use serde_json::json;

use super::fake::{Fake, Step, chunk, data, end, finish, plain, reply, sse_head, stream, text};
use super::*;
use crate::llm::{Piece, ResponseFormat};

async fn read(mut stream: Stream) -> (String, Result<(), GatewayError>, Stream) {
    let mut said = String::new();
    let mut frames = Vec::new();
    loop {
        let more = stream.next(&mut frames).await;
        for piece in frames.drain(..).flat_map(|frame| frame.pieces) {
            if let Piece::Text { text, .. } = piece {
                said.push_str(&text);
            }
        }
        match more {
            Ok(true) => {}
            Ok(false) => return (said, Ok(()), stream),
            Err(error) => return (said, Err(error), stream),
        }
    }
}

#[tokio::test]
async fn failover_is_invisible_until_the_first_token() {
    let preamble =
        || data(r#"{"id":"x","model":"m-1","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#);
    for broken in [
        vec![sse_head(), preamble(), data(r#"{"error":{"message":"Overloaded","code":529}}"#), end()],
        vec![sse_head(), preamble(), Step::Close],
        vec![sse_head(), preamble(), Step::Hang],
        vec![sse_head(), chunk(": thinking\n\n"), Step::Hang],
    ] {
        let hangs = matches!(broken.last(), Some(Step::Hang));
        let (first, second) = (Fake::start(vec![broken]).await, Fake::start(vec![stream(&["a", "b"])]).await);
        let (gateway, tape) = over(&[&first, &second], if hangs { SHORT } else { "" });
        let opened = open(&gateway, request(&gateway)).await.expect("stream");
        assert_eq!((&*opened.provenance.endpoint, opened.provenance.attempts), ("e1", 2));
        let (said, ended, stream) = read(opened).await;
        assert_eq!((said.as_str(), ended.is_ok()), ("ab", true));
        assert_eq!(stream.usage().cached, Some(4));
        assert_eq!(tape.outcomes().iter().map(|(outcome, _)| *outcome).collect::<Vec<_>>(), ["failed", "ok"]);
    }
}

#[tokio::test]
async fn parallel_tool_calls_off_passes_on_the_first_call_of_each_answer() {
    let call = |choice, index, name| {
        let call = json!({"index":index,"id":name,"type":"function","function":{"name":name,"arguments":"{}"}});
        let choices = json!([{"index":choice,"delta":{"tool_calls":[call]}}]);
        let own = json!({"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":choices});
        data(&own.to_string())
    };
    let calls = [call(0, 0, "f"), call(1, 0, "g"), call(0, 1, "h"), call(1, 1, "i")];
    for (parallel, expected) in
        [(None, ["f", "g", "h", "i"].as_slice()), (Some(true), &["f", "g", "h", "i"]), (Some(false), &["f", "g"])]
    {
        let ends = [0, 1].map(|choice| {
            data(&json!({"choices":[{"index":choice,"delta":{},"finish_reason":"tool_calls"}]}).to_string())
        });
        let steps = [vec![sse_head()], calls.to_vec(), ends.to_vec(), vec![data("[DONE]"), end()]].concat();
        let (gateway, _) = over(&[&Fake::start(vec![steps]).await], "");
        let mut request = request(&gateway);
        request.chat.parallel_tool_calls = parallel;
        request.chat.n = Some(2);
        let mut stream = open(&gateway, request).await.expect("stream");
        let mut frames = Vec::new();
        while stream.next(&mut frames).await.expect("a whole stream") {}
        let of_calls = frames.iter().flat_map(|frame| {
            let raw = || String::from_utf8_lossy(frame.raw.as_deref().expect("as it came")).into_owned();
            frame.pieces.iter().filter_map(move |piece| match piece {
                Piece::ToolCall { name: Some(name), .. } if raw().contains(&format!("{name:?}")) => Some(name.as_str()),
                _ => None,
            })
        });
        assert_eq!(of_calls.collect::<Vec<_>>(), expected, "{parallel:?}");
    }
}

#[tokio::test]
async fn stream_broken_after_the_first_token_is_an_error_and_partial() {
    for (code, tail) in [
        ("interrupted", vec![Step::Close]),
        ("interrupted", vec![end()]),
        ("timeout", vec![Step::Hang]),
        ("upstream_error", vec![data(r#"{"error":{"message":"Overloaded"}}"#), end()]),
        ("malformed", vec![data("{x"), end()]),
    ] {
        let mut steps = vec![sse_head(), text("half")];
        steps.push(data(r#"{"id":"x","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1}}"#));
        steps.extend(tail);
        let (first, second) = (Fake::start(vec![steps]).await, Fake::start(vec![plain("never")]).await);
        let (gateway, tape) = over(&[&first, &second], if code == "timeout" { SHORT } else { "" });
        let (said, ended, stream) = read(open(&gateway, request(&gateway)).await.expect("stream")).await;
        let error = ended.expect_err("broken");
        assert_eq!((said.as_str(), error.code().as_str(), error.attempts().len()), ("half", code, 1));
        assert_eq!(stream.usage().input, Some(5));
        assert_eq!(tape.outcomes(), [("partial", Some(code))]);
        assert_eq!(tape.done.lock().expect("tape")[0].input, Some(5));
        assert_eq!(second.requests(), 0);
    }
}

#[tokio::test]
async fn endless_stream_ends_at_the_deadline() {
    let mut steps = vec![sse_head()];
    for _ in 0..1_000 {
        steps.push(text("x"));
        steps.push(Step::Wait(Duration::from_millis(20)));
    }
    let fake = Fake::start(vec![steps]).await;
    let (gateway, tape) = over(&[&fake], "");
    let mut request = request(&gateway);
    request.deadline = Some(Duration::from_secs(1));
    let started = Instant::now();
    let (_, ended, _) = read(open(&gateway, request).await.expect("stream")).await;
    assert_eq!(ended.expect_err("deadline").code().as_str(), "timeout");
    // The fake would go on for at least twenty seconds, and much longer on a busy machine.
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(tape.outcomes(), [("partial", Some("timeout"))]);
}

#[tokio::test]
async fn dropped_stream_is_aborted_and_recorded() {
    let fake = Fake::start(vec![vec![sse_head(), text("x"), Step::Hang]]).await;
    let (gateway, tape) = over(&[&fake], "");
    let stream = open(&gateway, request(&gateway)).await.expect("stream");
    drop(stream);
    assert_eq!(tape.outcomes(), [("aborted", None)]);
    aborted(&fake, 1).await;
}

#[tokio::test]
async fn stream_without_its_end_mark_is_complete_if_every_answer_ended() {
    let mut steps = vec![sse_head(), text("x")];
    steps.push(data(r#"{"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#));
    steps.push(Step::Hang);
    let mut doubled = vec![sse_head(), text("x")];
    doubled.extend(finish());
    doubled.insert(doubled.len() - 1, chunk("data: [DONE]\n\n"));
    let fake = Fake::start(vec![steps, doubled]).await;
    let (gateway, _) = over(&[&fake], SHORT);
    for _ in 0..2 {
        let (said, ended, _) = read(open(&gateway, request(&gateway)).await.expect("stream")).await;
        assert_eq!((said.as_str(), ended.is_ok()), ("x", true));
    }
}

#[tokio::test]
async fn plain_request_is_plain_upstream_and_priced() {
    let fake = Fake::start(vec![reply(500, "", "{}"), plain("well")]).await;
    let text = format!(
        "[endpoints.e0]\nprovider = \"openai\"\nbase_url = \"{}\"\nprices = [{{model = \"v\", input = 1.0, output = 2.0}}]\n\
         [models.m]\ncandidates = [\"e0/v\"]",
        fake.url
    );
    let (gateway, tape) = gateway(&text);
    let answer = gateway.complete(request(&gateway)).await.expect("answer");
    assert_eq!((answer.text.as_str(), answer.provenance.attempts), ("well", 2));
    assert_eq!(answer.cost_usd, Some((9.0 + 4.0) / 1e6));
    assert_eq!(fake.body(0).get("stream"), None);
    let costs: Vec<_> = tape.done.lock().expect("tape").iter().map(|done| done.cost_pico).collect();
    assert_eq!(costs, [None, Some(13_000_000)]);
}

#[tokio::test]
async fn invalid_request_makes_no_attempt() {
    let fake = Fake::start(vec![plain("x")]).await;
    let (gateway, tape) = over(&[&fake], "");
    let mut request = request(&gateway);
    request.chat.temperature = Some(9.0);
    let error = gateway.complete(request).await.expect_err("invalid");
    assert_eq!((error.code().as_str(), error.param()), ("invalid_request", Some("temperature")));
    assert!(tape.begun.lock().expect("tape").is_empty());
}

#[tokio::test]
async fn request_that_a_vendors_format_cannot_express_makes_no_attempt() {
    let fake = Fake::start(vec![plain("well")]).await;
    let text = |candidates: &str| {
        format!(
            "[endpoints.a]\nprovider = \"anthropic\"\nbase_url = \"{0}\"\nmax_concurrency = 1\n\
             [endpoints.b]\nprovider = \"openai\"\nbase_url = \"{0}\"\n[models.m]\ncandidates = {candidates}",
            fake.url
        )
    };
    for (candidates, whys) in [("[\"a/v\", \"b/v\"]", vec!["failover"]), ("[\"a/v\"]", vec![])] {
        let (gateway, tape) = gateway(&text(candidates));
        let mut request = request(&gateway);
        request.chat.n = Some(2);
        match gateway.complete(request).await {
            Ok(answer) => assert_eq!(answer.provenance.attempts, 1),
            Err(error) => {
                let attempts: Vec<_> = error.attempts().iter().map(|made| (made.code, made.why)).collect();
                assert_eq!((error.code().as_str(), attempts), ("unsupported", vec![(Code::Unsupported, None)]));
            }
        }
        assert_eq!((tape.whys(), fake.requests()), (whys, 1), "{candidates}");
    }
}

#[tokio::test]
async fn streamed_answer_that_violates_its_schema_ends_in_an_error() {
    // The second answer is JSON in a code fence, which cannot be removed from text that was already streamed.
    for words in [["{\"a\":", "\"x\"}"], ["```json\n{\"a\":1}", "\n```"]] {
        let fake = Fake::start(vec![stream(&words)]).await;
        let (gateway, _) = over(&[&fake], "");
        let (said, ended, _) = read(open(&gateway, under_schema(&gateway)).await.expect("stream")).await;
        assert_eq!(said, words.concat());
        assert_eq!(ended.expect_err("mismatch").code().as_str(), "schema_mismatch");
    }
}

/// A schema whose every level doubles the number of paths to the next one.
fn twice() -> Arc<serde_json::Value> {
    let list = json!({"type": "array", "items": {"$ref": "#"}});
    Arc::new(json!({"anyOf": [list, list, {"type": "integer", "maximum": 0}]}))
}

#[tokio::test]
async fn answer_that_is_too_complex_to_check_fails_by_name() {
    let deep = "[".repeat(30) + "1" + &"]".repeat(30);
    let fake = Fake::start(vec![stream(&[&deep])]).await;
    let (gateway, tape) = over(&[&fake], "");
    let asked = || {
        let mut request = under_schema(&gateway);
        request.chat.response_format =
            Some(ResponseFormat::JsonSchema { name: "s".into(), schema: twice(), strict: true });
        request
    };
    let (said, ended, _) = read(open(&gateway, asked()).await.expect("stream")).await;
    assert_eq!(said, deep);
    let streamed = ended.expect_err("too complex");
    let whole = gateway.complete(asked()).await.map(|_| ()).expect_err("too complex");
    for error in [streamed, whole] {
        assert_eq!((error.code().as_str(), error.attempts().len()), ("too_complex", 1), "{error}");
        assert_eq!(error.attempts()[0].code, Code::TooComplex);
        assert!(error.message().contains("answer_steps"), "{error}");
    }
    assert_eq!((fake.requests(), tape.whys()), (2, vec!["first", "first"]), "nothing is asked again");
}

#[tokio::test]
async fn stream_with_a_schema_in_the_prompt_is_validated_before_it_is_passed_on() {
    let fenced = stream(&["```json\n{\"a\":", "1}\n```"]);
    let wrong = stream(&["{\"a\":", "\"x\"}"]);
    for (script, attempts) in [(vec![fenced.clone()], 1), (vec![wrong.clone(), fenced], 2)] {
        let fake = Fake::start(script).await;
        let (gateway, _) = limited(&[&fake], &["structured_output = \"prompt\""], "");
        let (said, ended, answer) = read(open(&gateway, under_schema(&gateway)).await.expect("stream")).await;
        ended.expect("valid");
        assert_eq!((said.as_str(), answer.provenance.attempts), ("{\"a\":1}", attempts));
    }
    let fake = Fake::start(vec![wrong]).await;
    let (gateway, _) = limited(&[&fake], &["structured_output = \"prompt\""], "");
    let Err(error) = open(&gateway, under_schema(&gateway)).await else { panic!("a stream of what is not valid") };
    assert_eq!((error.code().as_str(), fake.requests()), ("schema_mismatch", 2));
}

fn under_schema(gateway: &Gateway) -> Request {
    let mut request = request(gateway);
    let schema = Arc::new(json!({"type":"object","properties":{"a":{"type":"integer"}}}));
    request.chat.response_format = Some(ResponseFormat::JsonSchema { name: "s".into(), schema, strict: true });
    request
}

#[tokio::test]
async fn streamed_refusal_or_tool_call_needs_no_schema() {
    let call = r#"{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}"#;
    for (delta, finish) in [(call, "tool_calls"), (r#"{"refusal":"I will not."}"#, "stop"), ("{}", "content_filter")] {
        let part = |delta: &str| data(&format!(r#"{{"id":"x","choices":[{{"index":0,"delta":{delta}}}]}}"#));
        let last = data(&format!(r#"{{"id":"x","choices":[{{"index":0,"delta":{{}},"finish_reason":"{finish}"}}]}}"#));
        let fake = Fake::start(vec![vec![sse_head(), text("Well: "), part(delta), last, data("[DONE]"), end()]]).await;
        let (gateway, _) = over(&[&fake], "");
        let (said, ended, _) = read(open(&gateway, under_schema(&gateway)).await.expect("stream")).await;
        assert_eq!(said, "Well: ");
        ended.unwrap_or_else(|error| panic!("{finish}: {error:?}"));
    }
}

#[tokio::test]
async fn burst_is_passed_on_whole_in_few_pieces() {
    let words: Vec<String> = (0..400).map(|number| format!("{number} ")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let at_once = |steps: Vec<Step>| {
        let bytes = steps.into_iter().map(|step| match step {
            Step::Write(bytes) => bytes,
            _ => panic!("a stream that never waits"),
        });
        vec![Step::Write(bytes.flatten().collect())]
    };
    let fake = Fake::start(vec![at_once(stream(&words))]).await;
    let (gateway, _tape) = over(&[&fake], "");
    let mut answer = open(&gateway, request(&gateway)).await.expect("stream");
    let (mut text, mut pieces, mut frames) = (String::new(), 0, Vec::new());
    while answer.next(&mut frames).await.expect("frames") {
        pieces += 1;
        for piece in frames.drain(..).flat_map(|frame| frame.pieces) {
            if let Piece::Text { text: more, .. } = piece {
                text.push_str(&more);
            }
        }
    }
    assert_eq!(text, words.concat());
    assert!(pieces < words.len() / 4, "{} chunks in {pieces} pieces", words.len());
}
