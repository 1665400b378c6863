//! Reloading the configuration of a running daemon: it takes effect without dropping a request, or it is rejected as a
//! whole with an error.

use tokio::sync::watch;

use crate::support::daemon::{Daemon, run};
use crate::support::llm::MockLlm;
use crate::support::vendor::{Dialect, Step, Tokens, Vendor, reply};
use crate::support::{Json, PATIENCE, eventually, json, shared};

/// A vendor that begins its answers at once, and ends each of them when the test allows it.
async fn held(go: watch::Receiver<usize>) -> Vendor {
    Vendor::start(Dialect::OpenAi, move |asked| {
        let waits = Step::Until(go.clone(), 1);
        let tokens = Tokens::of(asked);
        if !asked.stream {
            return [vec![waits], reply(200, "", &Dialect::OpenAi.whole("whole", tokens))].concat();
        }
        let mut steps = Dialect::OpenAi.streamed(&["first ", "last"], tokens);
        // After the head, what comes before the text, and the first text.
        steps.insert(3, waits);
        steps
    })
    .await
}

fn config(base_url: &str, more: &str) -> String {
    format!(
        "[endpoints.e]\nprovider = \"openai_compatible\"\nbase_url = \"{base_url}\"\n\
         prices = [{{ model = \"*\", input = 1, output = 2 }}]\n\
         [models.m]\ncandidates = [\"e/held\"]\nheader_timeout_ms = 60000\nfirst_token_timeout_ms = 60000\n\
         between_tokens_timeout_ms = 60000\ntotal_timeout_ms = 120000\n\
         [routes.r]\nvariants = [{{ name = \"a\", model = \"m\" }}]\n{more}"
    )
}

fn ask(stream: bool) -> Json {
    json!({"model":"r","stream":stream,"messages":[{"role":"user","content":"Hello."}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_keep_their_configuration() {
    let _machine = shared().await;
    let (go, let_go) = watch::channel(0);
    let (held, mock) = (held(let_go).await, MockLlm::start().await);
    let daemon = Daemon::start(&config(&format!("http://{}/v1", held.address), "")).await;
    let (plain, streamed) = (ask(false), ask(true));
    let ends = async {
        tokio::join!(daemon.post("/v1/chat/completions", &plain), daemon.post("/v1/chat/completions", &streamed))
    };
    let reloads = async {
        eventually("both begun", PATIENCE, || async { (held.count() == 2).then_some(()) }).await;
        // By signal, then by the change of the file alone: each time the next request goes to the other endpoint, and
        // the two open ones continue.
        daemon.configure(&config(&mock.base_url(), ""));
        daemon.sighup();
        goes_to_mock(&daemon, &mock).await;
        daemon.configure(&config(&mock.base_url(), "[gateway]\ncatch_all_route = \"r\"\n"));
        eventually("the changed file is taken over", PATIENCE, || async {
            let body = json!({"model":"anything","messages":[{"role":"user","content":"Hello."}]});
            (daemon.post("/v1/chat/completions", &body).await.status == 200).then_some(())
        })
        .await;
        go.send_replace(1);
    };
    let ((plain, streamed), ()) = tokio::join!(ends, reloads);
    assert_eq!(plain.status, 200, "{}", plain.text());
    assert_eq!(plain.json()["choices"][0]["message"]["content"], "whole");
    let text = streamed.text();
    assert!(text.contains("first ") && text.contains("last") && text.trim_end().ends_with("[DONE]"), "{text}");
    let outcomes = daemon.get_json("/v1/usage?group_by=outcome").await;
    let bad = outcomes["rows"].as_array().expect("rows").iter().find(|row| row["outcome"] != "ok");
    assert_eq!(bad, None, "nothing was cut: {outcomes}");
}

async fn goes_to_mock(daemon: &Daemon, mock: &MockLlm) {
    eventually("the reload is counted", PATIENCE, || async {
        (daemon.metric("sidetone_config_reloads_total", &["ok"]).await >= 1.0).then_some(())
    })
    .await;
    let before = mock.count();
    assert_eq!(daemon.post("/v1/chat/completions", &ask(false)).await.status, 200);
    assert_eq!(mock.count(), before + 1, "requests go to the new endpoint");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_file_changes_nothing_and_is_reported() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let good = config(&mock.base_url(), "");
    let daemon = Daemon::start(&good).await;
    assert!((daemon.metric("sidetone_config_valid", &[]).await - 1.0).abs() < 0.5);
    daemon.configure(&good.replace("model = \"m\"", "model = \"nobody\""));
    daemon.sighup();
    eventually("the refusal is counted", PATIENCE, || async {
        (daemon.metric("sidetone_config_reloads_total", &["refused"]).await >= 1.0).then_some(())
    })
    .await;
    assert!(daemon.metric("sidetone_config_valid", &[]).await < 0.5);
    let log = daemon.log();
    assert!(log.contains("routes.r.variants[0].model") && log.contains("is not changed"), "{log}");
    assert_eq!(daemon.post("/v1/chat/completions", &ask(false)).await.status, 200);
    // Not valid TOML.
    daemon.configure("[endpoints");
    eventually("the change is seen and refused", PATIENCE, || async {
        (daemon.metric("sidetone_config_reloads_total", &["refused"]).await >= 2.0).then_some(())
    })
    .await;
    assert_eq!(daemon.post("/v1/chat/completions", &ask(true)).await.status, 200);
    // Valid again, with a section that cannot change while the daemon runs.
    daemon.configure(&format!("{good}\n[ingest]\nlinger_ms = 77\n"));
    eventually("the good one holds", PATIENCE, || async {
        (daemon.metric("sidetone_config_valid", &[]).await > 0.5).then_some(())
    })
    .await;
    // The log line comes after the gauge.
    eventually("the section that waits is named", PATIENCE, || async {
        let log = daemon.log();
        (log.contains("take effect at the next start") && log.contains("ingest")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prices_routes_keys_and_limits_change_at_once_and_are_recorded() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let good = config(&mock.base_url(), "");
    let daemon = Daemon::start(&good).await;
    let cost = daemon.post("/v1/chat/completions", &ask(false)).await.json()["sidetone"]["cost_usd"].as_f64();
    daemon.configure(&format!(
        "{}\n[limits]\nusd_per_day = 0.000000001\n",
        good.replace("output = 2", "output = 3").replace("name = \"a\"", "name = \"b\"")
    ));
    daemon.sighup();
    eventually("the cap holds", PATIENCE, || async {
        let reply = daemon.post("/v1/chat/completions", &ask(false)).await;
        (reply.status == 402 && reply.text().contains("limits.usd_per_day")).then_some(())
    })
    .await;
    assert!(cost.is_some_and(|cost| cost > 0.0), "{cost:?}");
    daemon.configure(&good.replace("[routes.r]", "[routes.other]"));
    daemon.sighup();
    eventually("the cap lifts and the route is gone", PATIENCE, || async {
        let reply = daemon.post("/v1/chat/completions", &ask(false)).await;
        (reply.status == 404).then_some(())
    })
    .await;
    let path = daemon.config_path().display().to_string();
    let made = run(&["key", "create", "--scope", "admin", "--name", "boss", "--config", &path]).await;
    assert!(made.status.success());
    let key = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    let bearer = format!("Bearer {key}");
    let changes = eventually("the key is on record", PATIENCE, || async {
        let path = "/v1/usage?group_by=none&changes=true";
        let reply = crate::support::http::request(daemon.port, "GET", path, &[("authorization", &bearer)], None).await;
        let changes = reply.json()["changes"].as_array().cloned().unwrap_or_default();
        changes.iter().any(|change| change["kind"] == "key").then_some(changes)
    })
    .await;
    let of = |kind: &str, name: &str| -> Vec<Json> {
        let named = changes.iter().filter(|change| change["kind"] == kind && change["name"] == name);
        named.map(|change| change["detail"].clone()).collect()
    };
    let prices = of("price", "e/* from 1970-01-01T00:00:00.000Z");
    let outputs: Vec<bool> =
        ["2.0", "3.0", "2.0"].iter().zip(&prices).map(|(output, price)| price.to_string().contains(output)).collect();
    assert_eq!(outputs, [true; 3], "{prices:?}");
    let routes = of("route", "r");
    assert_eq!((routes.len(), routes.last()), (3, Some(&Json::Null)), "made, changed, gone: {routes:?}");
    assert_eq!(of("key", "boss"), [json!("scopes admin")]);
    assert!(!json!(changes).to_string().contains(&key), "a key is on the bill by name alone");
}
