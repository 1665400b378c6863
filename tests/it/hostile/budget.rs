//! Work that a client, a model or a configuration can cause runs in a budget: schemas, patterns, quotes, JSON repair,
//! templates.

use std::path::Path;
use std::time::Duration;

use super::Target;
use crate::support::http::Reply;
use crate::support::llm::{MockLlm, Step};
use crate::support::ws::{Client, ingest, turn};
use crate::support::{Json, daemon, json, shared};

/// Number of concurrent requests.
const AT_ONCE: usize = 16;

/// Definitions, each of which references the next one twice.
fn doubling(count: usize) -> Json {
    let mut definitions = serde_json::Map::new();
    for number in 0..count {
        let next = json!({"$ref": format!("#/$defs/d{}", number + 1)});
        definitions.insert(format!("d{number}"), json!({"allOf": [next, next]}));
    }
    definitions.insert(format!("d{count}"), json!({"type": "object"}));
    json!({"$ref": "#/$defs/d0", "$defs": definitions})
}

fn under(schema: &Json) -> Json {
    json!({"model": "mocked", "messages": [{"role": "user", "content": "go"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}})
}

/// Sends all `bodies`, several at once, and returns the answers in their order.
async fn ask_all(port: u16, bodies: Vec<Json>) -> Vec<Reply> {
    let mut replies = Vec::new();
    let mut left = bodies.into_iter();
    loop {
        let asked: Vec<_> = left
            .by_ref()
            .take(AT_ONCE)
            .map(|body| {
                tokio::spawn(async move {
                    let headers = [("content-type", "application/json")];
                    crate::support::http::request(
                        port,
                        "POST",
                        "/v1/chat/completions",
                        &headers,
                        Some(body.to_string()),
                    )
                    .await
                })
            })
            .collect();
        if asked.is_empty() {
            return replies;
        }
        for reply in asked {
            replies.push(reply.await.expect("asked"));
        }
    }
}

/// OpenAI's format, `too_complex`, and a message that names the limit.
fn assert_refused(reply: &Reply, status: u16, limit: &str) {
    let error = &reply.json()["error"];
    assert_eq!((reply.status, &error["code"]), (status, &json!("too_complex")), "{}", reply.text());
    assert!(error["message"].as_str().is_some_and(|message| message.contains(limit)), "{limit}: {error}");
}

async fn mocked(extra: &str) -> (MockLlm, Target) {
    let mock = MockLlm::start().await;
    let target = Target::start(&format!("{}{extra}", mock.config(""))).await;
    (mock, target)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schema_that_doubles_with_each_definition_is_refused_before_anybody_is_asked() {
    let (mock, target) = mocked("").await;
    let port = target.daemon.port;
    let report = target
        .during(async {
            let bodies = (0..200).map(|number| under(&doubling([14, 22, 40, 300][number % 4]))).collect();
            for reply in ask_all(port, bodies).await {
                assert_refused(&reply, 400, "schema_");
                assert_eq!(reply.json()["error"]["param"], "response_format");
            }
        })
        .await;
    report.assert_bounded();
    let of_ours = |asked: &crate::support::llm::Asked| asked.body.to_string().contains("#/$defs/d");
    assert!(!mock.asked().iter().any(of_ours), "no vendor was asked");
}

/// Each level of the answer doubles the work, and a vendor can make it as deep as it likes; and an answer with very
/// many errors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_that_takes_too_much_to_check_is_too_complex() {
    let (mock, target) = mocked("").await;
    let list = json!({"type": "array", "items": {"$ref": "#"}});
    let twice = json!({"anyOf": [list, list, {"type": "integer", "maximum": 0}]});
    let wide = json!({"type": "array", "items": {"type": "object", "required": ["a", "b", "c"]}});
    mock.script(|asked| {
        let deep = asked.body.to_string().contains("anyOf");
        let answer = if deep { "[".repeat(30) + "1" + &"]".repeat(30) } else { format!("[{}0]", "0,".repeat(10_000)) };
        Step::Say(answer, Duration::ZERO)
    });
    let port = target.daemon.port;
    let report = target
        .during(async {
            for reply in ask_all(port, vec![under(&twice); 48]).await {
                assert_refused(&reply, 502, "answer_steps");
            }
            for reply in ask_all(port, vec![under(&wide); 48]).await {
                let error = reply.json();
                assert_eq!((reply.status, &error["error"]["code"]), (502, &json!("schema_mismatch")), "{error}");
            }
        })
        .await;
    report.assert_bounded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_over_their_number_or_size_are_refused() {
    let (_mock, target) = mocked("").await;
    let many: Vec<Json> = (0..600).map(|number| json!({"pattern": format!("^[a-z]{{1,30}}{number:04}$")})).collect();
    let wide = json!({"anyOf": [{"pattern": r"^(\p{L}{1,100}){1,100}$"}, {}]});
    let slow = json!({"pattern": r"\d".repeat(15_000)});
    let port = target.daemon.port;
    let report = target
        .during(async {
            for schema in [json!({"anyOf": many}), wide, slow] {
                for reply in ask_all(port, vec![under(&schema); 32]).await {
                    assert_refused(&reply, 400, "schema_pattern");
                }
            }
        })
        .await;
    report.assert_bounded();
}

/// Each schema is new, and its patterns keep caches of their matches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_with_patterns_do_not_accumulate_in_memory() {
    let (mock, target) = mocked("").await;
    mock.script(|_| Step::Say(format!("\"{}\"", "ab".repeat(500)), Duration::ZERO));
    let port = target.daemon.port;
    let report = target
        .during(async {
            let taken = |number: usize| {
                let kept: Vec<Json> =
                    (0..10).map(|at| json!({"pattern": format!("^[ab]*(x{number}y{at})?$")})).collect();
                under(&json!({ "allOf": kept }))
            };
            for reply in ask_all(port, (0..60).map(taken).collect()).await {
                assert_eq!(reply.status, 200, "{}", reply.text());
            }
        })
        .await;
    report.assert_bounded();
}

/// A call of `turns` turns, ended; returns its insights and failures.
async fn summed_up(target: &Target, call: &str, turns: u64) -> Vec<Json> {
    let (mut client, _) = ingest(&target.daemon, &format!("call_id={call}&stream_id=s_1&analyses=summary")).await;
    for order in 0..turns {
        client.send(&turn(order, "agent", &format!("Sentence {order} of a long call, and so on and so on."))).await;
    }
    client.acked(turns - 1).await;
    client.send(&json!({"type": "end", "reason": "hangup", "scope": "call"})).await;
    until_completed(&mut client).await;
    target.daemon.events(call).await.into_iter().filter(is_of_insight).collect()
}

async fn until_completed(client: &mut Client) {
    client.until("the call's end", |frame| frame["type"] == "call.completed").await;
}

fn is_of_insight(event: &Json) -> bool {
    event["type"].as_str().is_some_and(|kind| kind.starts_with("insight."))
}

fn summary(quotes: usize) -> String {
    let evidence: Vec<Json> =
        (0..quotes).map(|number| json!({"turn": number, "quote": format!("made up words number {number}")})).collect();
    json!({"headline": "Nothing.", "points": [], "outcome": null, "evidence": evidence}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn insight_with_more_quotes_than_are_checked_fails_by_name() {
    let (mock, target) =
        mocked("[ingest]\nlinger_ms = 50\nfinal_timeout_ms = 2000\n[analyses.summary]\nbundle = \"\"\n").await;
    mock.script(|_| Step::Say(summary(8_000), Duration::ZERO));
    let report = target
        .during(async {
            for number in 0..2 {
                let insights = summed_up(&target, &format!("quotes-{number}"), 500).await;
                assert!(!insights.is_empty());
                for failed in insights {
                    assert_eq!((&failed["type"], &failed["code"]), (&json!("insight.failed"), &json!("too_complex")));
                    assert!(failed["message"].to_string().contains("insight_quotes (200)"), "{failed}");
                }
            }
        })
        .await;
    report.assert_bounded();
}

/// As many quotes as allowed, none of which is in any turn: each is searched for in all turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unverified_quotes_are_marked_and_delay_no_other_call() {
    let (mock, target) =
        mocked("[ingest]\nlinger_ms = 50\nfinal_timeout_ms = 2000\n[analyses.summary]\nbundle = \"\"\n").await;
    mock.script(|_| Step::Say(summary(200), Duration::ZERO));
    let report = target
        .during(async {
            let insights = summed_up(&target, "quotes", 2_000).await;
            let last = insights.last().expect("an insight");
            let evidence = last["insight"]["evidence"].as_array().expect("evidence");
            assert_eq!(evidence.len(), 200);
            assert!(evidence.iter().all(|quote| quote["unverified"] == true), "{last}");
        })
        .await;
    report.assert_bounded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deeply_nested_answer_and_many_thinking_tags_stay_within_the_bounds() {
    let (mock, target) = mocked("").await;
    let port = target.daemon.port;
    let ask = || {
        json!({"model": "mocked", "messages": [{"role": "user", "content": "go"}],
            "post_processing_steps": [{"type": "json-repair"}]})
    };
    let report = target
        .during(async {
            mock.script(|_| Step::Say("[{".repeat(50_000), Duration::ZERO));
            for reply in ask_all(port, vec![ask(); AT_ONCE]).await {
                // The last brackets can be closed; whether the result counts as an answer does not matter here.
                assert!([200, 502].contains(&reply.status), "{}", reply.status);
            }
            mock.script(|_| Step::Say("<think>a</think>".repeat(20_000), Duration::ZERO));
            for reply in ask_all(port, vec![ask(); AT_ONCE]).await {
                assert_eq!(reply.status, 502, "no JSON: {}", reply.status);
            }
        })
        .await;
    report.assert_bounded();
}

fn analysis(dir: &Path, schema: &Json, prompt: &str) -> String {
    std::fs::create_dir_all(dir).expect("folder");
    std::fs::write(dir.join("schema.json"), schema.to_string()).expect("schema");
    std::fs::write(dir.join("v1.j2"), prompt).expect("prompt");
    format!("[analyses.own]\ndir = {:?}\nroute = \"summary\"\n", dir.display().to_string())
}

/// The cost of rendering a template is known only for a real call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn template_that_takes_too_much_fails_its_insight_by_name() {
    let home = tempfile::tempdir().expect("folder");
    let prompt = "{{ transcript }}{% for a in meta.many %}{% for b in meta.many %}{% for c in meta.many %}\
                  {{ a }}{{ b }}{{ c }}{% endfor %}{% endfor %}{% endfor %}";
    let own = analysis(home.path(), &json!({"type": "object"}), prompt);
    let (_mock, target) = mocked(&format!("{own}[ingest]\nlinger_ms = 50\nfinal_timeout_ms = 2000\n")).await;
    let meta = crate::support::ws::encode(&json!({"many": (0..2_000).collect::<Vec<_>>()}).to_string());
    let report = target
        .during(async {
            let query = format!("call_id=c1&stream_id=s_1&analyses=own&meta={meta}");
            let (mut client, _) = ingest(&target.daemon, &query).await;
            client.send(&turn(0, "agent", "Hello.")).await;
            client.send(&json!({"type": "end", "scope": "call"})).await;
            until_completed(&mut client).await;
            let events = target.daemon.events("c1").await;
            let failed = events.iter().find(|event| event["type"] == "insight.failed").expect("a failure");
            assert_eq!(failed["code"], "too_complex", "{failed}");
            assert!(failed["message"].to_string().contains("template_fuel (100000)"), "{failed}");
        })
        .await;
    report.assert_bounded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_what_is_too_complex_in_a_configuration_and_where() {
    let _machine = shared().await;
    let home = tempfile::tempdir().expect("folder");
    let endless = "{{ transcript }}{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
    let pattern = json!({"type": "object", "properties": {"a": {"pattern": "(a{1000}){1000}"}}});
    for (name, schema, prompt, limit) in [
        ("schema", &doubling(40), "{{ transcript }}", "schema_chain"),
        ("pattern", &pattern, "{{ transcript }}", "schema_pattern_states"),
        ("template", &json!({"type": "object"}), endless, "template_fuel"),
    ] {
        let mut config = analysis(&home.path().join(name), schema, prompt).replace("route = \"summary\"\n", "");
        config.push_str("route = \"local\"\n");
        let file = home.path().join(format!("{name}.toml"));
        std::fs::write(&file, config).expect("configuration");
        let checked = daemon::run(&["check", "--config", &file.display().to_string()]).await;
        let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
        assert_eq!(checked.status.code(), Some(1), "{name}: {said}");
        let line = said.lines().find(|line| line.starts_with("analyses.own.dir: ")).unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains("too_complex") && line.contains(limit), "{name}: {line}");
    }
    let route = "[[routes.r.variants]]\nmodel = \"local\"\n[routes.r.variants.params.response_format]\n\
                 type = \"json_schema\"\njson_schema = { name = \"s\", schema = { pattern = \"(a{1000}){1000}\" } }\n";
    let file = home.path().join("route.toml");
    std::fs::write(&file, route).expect("configuration");
    let checked = daemon::run(&["check", "--config", &file.display().to_string()]).await;
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(said.contains("too_complex") && said.contains("schema_pattern_states"), "{said}");
}
