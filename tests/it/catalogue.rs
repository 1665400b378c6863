//! The models that can be requested: vendors' lists of models, features that models lack, and models that will be
//! retired.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::daemon::{Daemon, LOCAL_ANALYSES, run};
use crate::support::llm::{MockLlm, Step};
use crate::support::{Json, PATIENCE, eventually, json, shared};

fn ask(model: &str, more: Json) -> Json {
    let mut body = json!({"model":model,"messages":[{"role":"user","content":"Say something."}]});
    for (key, value) in more.as_object().expect("object") {
        body[key] = value.clone();
    }
    body
}

fn tool() -> Json {
    json!([{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}])
}

fn schema() -> Json {
    json!({"type":"json_schema","json_schema":{"name":"s","strict":true,"schema":{
        "type":"object","properties":{"a":{"type":"integer"}},"required":["a"],"additionalProperties":false}}})
}

async fn listed(daemon: &Daemon, id: &str) -> Json {
    eventually(&format!("{id} is listed"), PATIENCE, || async {
        let list = daemon.get_json("/v1/models").await;
        list["data"].as_array().expect("data").iter().find(|model| model["id"] == id).cloned()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vendors_list_serves_bare_names_and_prices_and_outlives_its_failure() {
    let _machine = shared().await;
    let (mock, other) = (MockLlm::start().await, MockLlm::start().await);
    mock.models(Some(json!({"object":"list","data":[
        {"id":"maker/one","object":"model","context_length":8000,"pricing":{"prompt":"0.000001","completion":"0.000002"},
         "supported_parameters":["temperature"],"expiration_date":"2020-01-01"},
        {"id":"..","object":"model"}]})));
    other.models(Some(json!({"object":"list","data":[{"id":"maker/one"},{"id":"only-here"}]})));
    // In the order of the file, whatever the names are.
    let config = format!(
        "[endpoints.zeta]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\ndiscover = true\ndiscover_interval_ms = 1000\n\
         [endpoints.alpha]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\ndiscover = true\n{LOCAL_ANALYSES}",
        mock.base_url(),
        other.base_url()
    );
    let daemon = Daemon::start(&config).await;
    let entry = listed(&daemon, "zeta/maker/one").await;
    listed(&daemon, "alpha/only-here").await;
    assert_eq!((&entry["kind"], &entry["configured"]), (&json!("vendor"), &json!(false)));
    assert_eq!((&entry["context_length"], &entry["capabilities"]["tools"]), (&json!(8000), &json!(false)));
    assert_eq!((&entry["pricing"]["input"], &entry["pricing"]["output"]), (&json!(1.0), &json!(2.0)));
    assert_eq!(entry["retirement_date"], "2020-01-01T00:00:00.000Z");
    assert!(entry["warning"].is_string(), "{entry}");
    assert_eq!(daemon.get_json("/models/zeta/maker/one").await, entry);
    let bad = daemon.get_json("/v1/models").await;
    assert!(!bad.to_string().contains("zeta/.."), "an id that is none is left out");

    let answer = daemon.post("/v1/chat/completions", &ask("maker/one", json!({}))).await.json();
    assert_eq!(answer["sidetone"]["model"], "zeta/maker/one", "{answer}");
    assert!(answer["sidetone"]["cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{answer}");
    let answer = daemon.post("/v1/chat/completions", &ask("only-here", json!({}))).await.json();
    assert_eq!(answer["sidetone"]["endpoint"], "alpha", "{answer}");
    assert_eq!(answer["sidetone"]["cost_usd"], Json::Null, "no price is no cost of zero");
    let reply = daemon.post("/v1/chat/completions", &ask("nobody's", json!({}))).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("model_not_found")));
    let changes = daemon.get_json("/v1/usage?changes=true").await["changes"].clone();
    let noted = changes
        .as_array()
        .expect("changes")
        .iter()
        .any(|change| (&change["kind"], &change["name"]) == (&json!("listed_price"), &json!("zeta/maker/one")));
    assert!(noted, "{changes}");

    mock.models(None);
    eventually("the failure is seen", PATIENCE, || async {
        let endpoints = daemon.get_json("/v1/models").await["endpoints"].clone();
        let zeta = endpoints.as_array()?.iter().find(|endpoint| endpoint["name"] == "zeta")?.clone();
        zeta["error"].as_str().filter(|error| error.contains("503")).map(|_| ())
    })
    .await;
    assert!(daemon.metric("sidetone_gateway_model_lists_total", &["zeta", "failed"]).await >= 1.0);
    assert!(daemon.log().contains("list of models cannot be read"));
    let answer = daemon.post("/v1/chat/completions", &ask("maker/one", json!({}))).await;
    assert_eq!(answer.status, 200, "what was known stays: {}", answer.text());
    mock.models(Some(json!({"data":[{"id":"two"}]})));
    listed(&daemon, "zeta/two").await;
    let reply = daemon.post("/v1/chat/completions", &ask("maker/one", json!({}))).await.json();
    assert_eq!(reply["sidetone"]["endpoint"], "alpha", "no longer in the first one's list: {reply}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vendor_that_is_mute_or_away_delays_neither_start_nor_requests() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    // Accepts connections, and never answers.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let config = format!(
        "{}\n[endpoints.mute]\nprovider = \"anthropic\"\nbase_url = \"http://{}\"\ndiscover = true\n",
        mock.config(""),
        mute.local_addr().expect("address")
    );
    let daemon = Daemon::start(&config).await;
    let answer = daemon.post("/v1/chat/completions", &ask("mocked", json!({}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(daemon.get_json("/v1/models").await["endpoints"].as_array().map(Vec::len), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_model_cannot_do_is_passed_over_or_refused_and_never_sent() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let config = format!(
        "[endpoints.mock]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\ncapabilities = [\n\
           {{ model = \"*\", context_length = 1000 }},\n\
           {{ model = \"plain\", tools = false, vision = false, reasoning = false, max_output_tokens = 50 }},\n]\n\
         [models.either]\ncandidates = [\"mock/plain\", \"mock/able\"]\n",
        mock.base_url()
    );
    let daemon = Daemon::start(&config).await;
    let image =
        json!([{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]}]);
    let cases = [
        (json!({"tools":tool()}), "does not support tools"),
        (json!({"messages":image}), "does not support images"),
        (json!({"reasoning_effort":"low"}), "does not support reasoning_effort"),
        (json!({"max_tokens":51}), "can answer with at most 50 tokens"),
        (json!({"messages":[{"role":"user","content":"word ".repeat(2000)}]}), "has a context of 1000 tokens"),
    ];
    for stream in [false, true] {
        for (more, says) in &cases {
            let mut more = more.clone();
            more["stream"] = json!(stream);
            let before = mock.count();
            let reply = daemon.post("/v1/chat/completions", &ask("mock/plain", more.clone())).await;
            let error = &reply.json()["error"];
            assert_eq!((reply.status, &error["code"]), (400, &json!("unsupported")), "{more}: {error}");
            assert!(error["message"].as_str().is_some_and(|message| message.contains(says)), "{error}");
            assert_eq!(mock.count(), before, "nothing was sent");
            if *says != "has a context of 1000 tokens" {
                let reply = daemon.post("/v1/chat/completions", &ask("either", more)).await;
                assert_eq!(reply.status, 200, "the next candidate can: {}", reply.text());
                assert_eq!(mock.asked_number(mock.count()).expect("asked").body["model"], "able");
            }
        }
    }
    let reply = daemon.post("/v1/chat/completions", &ask("either", json!({"reasoning_effort":"none"}))).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let asked = mock.asked_number(mock.count()).expect("asked").body;
    assert_eq!((&asked["model"], asked.get("reasoning_effort")), (&json!("plain"), None), "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_schema_and_stream_support_is_emulated() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let config = format!(
        "[endpoints.mock]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\nstructured_output = \"auto\"\n\
         capabilities = [{{ model = \"small\", json_schema = false, stream = false }}]\n{LOCAL_ANALYSES}",
        mock.base_url()
    );
    let daemon = Daemon::start(&config).await;
    let body = ask("mock/small", json!({"response_format":schema()}));
    mock.script(|_| Step::Say("```json\n{\"a\": 1,}\n```".to_owned(), Duration::ZERO));
    let answer = daemon.post("/v1/chat/completions", &body).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "{\"a\":1}", "nearly-JSON is repaired: {answer}");
    let asked = mock.asked_number(1).expect("asked");
    assert_ne!(asked.body["response_format"]["type"], "json_schema", "known beforehand: {}", asked.body);
    assert!(asked.prompt().contains("\"additionalProperties\":false"), "the schema is in the prompt");
    // Invalid once: the model is asked again, with the error. Invalid twice: a typed error.
    let invalid = AtomicUsize::new(1);
    mock.script(move |_| {
        let wrong = invalid.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        Step::Say(if wrong { "{\"a\":\"x\"}" } else { "{\"a\":2}" }.to_owned(), Duration::ZERO)
    });
    let answer = daemon.post("/v1/chat/completions", &body).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "{\"a\":2}", "{answer}");
    assert_eq!(answer["sidetone"]["attempts"], 2);
    assert!(mock.asked_number(3).expect("asked").prompt().contains("/a: "), "the repair says what was wrong");
    mock.script(|_| Step::Say("{\"a\":\"x\"}".to_owned(), Duration::ZERO));
    let reply = daemon.post("/v1/chat/completions", &body).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (502, &json!("schema_mismatch")));
    assert_eq!(mock.count(), 5);

    mock.script(|_| Step::Answer(Duration::ZERO));
    let reply = daemon.post("/v1/chat/completions", &ask("mock/small", json!({"stream":true}))).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let text = reply.text();
    assert!(text.contains("A scripted answer.") && text.trim_end().ends_with("data: [DONE]"), "{text}");
    assert_ne!(mock.asked_number(6).expect("asked").body["stream"], true, "asked whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn model_that_will_be_retired_is_warned_of_everywhere() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let config = format!(
        "{}\n[endpoints.old]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\nmodels = [\"gone\", \"stays\"]\n\
         capabilities = [{{ model = \"gone\", retires = \"2020-01-01\" }}, {{ model = \"stays\", retires = \"2999-01-01\" }}]\n",
        mock.config(""),
        mock.base_url()
    );
    let daemon = Daemon::start(&config).await;
    let entry = listed(&daemon, "old/gone").await;
    assert!(entry["warning"].as_str().is_some_and(|warning| warning.contains("2020-01-01")), "{entry}");
    assert_eq!(listed(&daemon, "old/stays").await["warning"], Json::Null);
    eventually("the log warns", PATIENCE, || async { daemon.log().contains("will be retired").then_some(()) }).await;
    let at = daemon.metric("sidetone_gateway_model_retires_timestamp_seconds", &["\"gone\""]).await;
    assert!((at - 1_577_836_800.0).abs() < 0.5, "{at}");
    let path = daemon.config_path().display().to_string();
    let checked = run(&["check", "--config", &path]).await;
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{said}");
    assert!(said.contains("old/gone") && said.contains("2020-01-01") && !said.contains("old/stays"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_are_printed_and_probed_with_a_daemon_and_without() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    mock.models(Some(json!({"data":[{"id":"listed"}]})));
    let config = format!(
        "{}\n[endpoints.dead]\nprovider = \"openai_compatible\"\nbase_url = \"http://127.0.0.1:9/v1\"\nmodels = [\"m\"]\n\
         [endpoints.live]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\ndiscover = true\n",
        mock.config("retries = 0"),
        mock.base_url()
    );
    let daemon = Daemon::start(&config).await;
    listed(&daemon, "live/listed").await;
    let (url, path) = (daemon.url(), daemon.config_path().display().to_string());
    for at in [["--to", url.as_str()], ["--config", path.as_str()]] {
        let printed = run(&["models", at[0], at[1]]).await;
        let text = String::from_utf8_lossy(&printed.stdout).into_owned();
        assert!(printed.status.success(), "{at:?}: {text}");
        for name in ["summary", "mocked", "local", "mock/mock-1", "dead/m", "live/listed"] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{at:?} {name}: {text}");
        }
        let probed = run(&["models", "--probe", at[0], at[1]]).await;
        let text = String::from_utf8_lossy(&probed.stdout).into_owned();
        assert_eq!(probed.status.code(), Some(1), "one is dead: {text}");
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
        assert!(line("mock/mock-1").contains("ok") && line("mock/mock-1").contains(" ms"), "{at:?}: {text}");
        assert!(line("live/listed").contains("ok"), "{at:?}: {text}");
        assert!(line("dead/m").contains("failed"), "{at:?}: {text}");
        assert_eq!(mock.asked_number(mock.count()).expect("asked").body["max_tokens"], 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_vendor_says_of_a_request_is_in_the_message_of_the_error() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let daemon = Daemon::start(&mock.config("retries = 0")).await;
    for (status, told) in [(400, true), (404, true), (401, false)] {
        mock.script(move |_| Step::Status(status));
        for stream in [false, true] {
            let reply = daemon.post("/v1/chat/completions", &ask("mocked", json!({"stream":stream}))).await;
            let error = &reply.json()["error"];
            let message = error["message"].as_str().unwrap_or_default();
            assert_eq!(message.ends_with("of 1 in all: scripted"), told, "{error}");
            assert_eq!(error["attempts"][0]["message"], "scripted", "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misspelt_model_is_refused_unless_a_catch_all_route_is_set() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let config = |gateway: &str| {
        format!(
            "[endpoints.e]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\n[models.fast]\ncandidates = [\"e/v\"]\n\
             [routes.live]\nvariants = [{{name = \"a\", model = \"fast\"}}]\n[gateway]\ndefault_route = \"live\"\n{gateway}",
            mock.base_url()
        )
    };
    let daemon = Daemon::start(&config("")).await;
    for (asked, meant) in [("lvie", Some("live")), ("fsat", Some("fast")), ("something-else", None)] {
        for stream in [false, true] {
            let reply = daemon.post("/v1/chat/completions", &ask(asked, json!({"stream": stream}))).await;
            assert_eq!(reply.status, 404, "{asked}: {}", reply.text());
            let error = reply.json()["error"].clone();
            assert_eq!(error["code"], "model_not_found", "{error}");
            let message = error["message"].as_str().expect("a message");
            assert!(message.contains("there are: live, fast, e/…, local"), "{message}");
            assert_eq!(message.contains("did you mean"), meant.is_some(), "{message}");
            assert!(meant.is_none_or(|name| message.ends_with(&format!("did you mean {name:?}?"))), "{message}");
        }
    }
    assert_eq!(mock.count(), 0);
    // The embedded provider is for analyses without a route.
    let (mut client, _) = crate::support::ws::ingest(&daemon, "call_id=c&analyses=summary").await;
    client.send(&crate::support::ws::turn(0, "agent", "My order is late again.")).await;
    client.send(&json!({"type":"end","scope":"call"})).await;
    client.of_type("call.completed").await;
    assert!(mock.count() > 0, "the summary asks the default route");
    daemon.configure(&config("catch_all_route = \"live\"\n"));
    daemon.sighup();
    let reply = eventually("the catch-all answers", PATIENCE, || async {
        let reply = daemon.post("/v1/chat/completions", &ask("lvie", json!({}))).await;
        (reply.status == 200).then_some(reply)
    })
    .await;
    assert_eq!(reply.header("sidetone-model-substituted"), Some("live"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_models_that_a_cap_does_not_count_and_absolute_paths() {
    let dir = tempfile::tempdir().expect("folder");
    let config = "[limits]\nusd_per_call = 1\n[endpoints.a]\nprovider = \"openai\"\n\
                  [models.m]\ncandidates = [\"a/x\"]\n[analyses.summary]\nroute = \"m\"\n";
    let daemon = Daemon::prepare(config, dir.path());
    let checked = std::process::Command::new(daemon.binary())
        .args(["check", "--config", "sidetone.toml"])
        .current_dir(dir.path())
        .output()
        .expect("run");
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{told}");
    assert!(told.contains("limits.usd_per_call: no price is known for a/x"), "{told}");
    assert!(told.contains(&daemon.config_path().display().to_string()), "{told}");
    daemon.configure("[models.m]\ncandidates = [\"zz/x\"]\n[endpoints.main]\nprovider = \"opnai\"\n");
    let checked = run(&["check", "--config", &daemon.config_path().display().to_string()]).await;
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(1), "{told}");
    assert!(told.contains("models.m.candidates[0]: no endpoint \"zz\"; there are: main"), "{told}");
    assert!(told.contains("found \"opnai\"; did you mean \"openai\"?"), "{told}");
}
