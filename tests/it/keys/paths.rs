//! Every path and every socket with every key.

use super::{ask, command, create, refused};
use crate::support::daemon::Daemon;
use crate::support::{http, shared};

pub(super) const SCOPES: [&str; 6] = ["ingest", "subscribe", "gateway", "metrics", "usage", "admin"];

/// Method, path, and the scopes that are required together; none = no key is required.
const PATHS: &[(&str, &str, &[&str])] = &[
    ("GET", "/v3/token?expires_in_seconds=60", &["ingest"]),
    ("GET", "/v1/calls", &["subscribe"]),
    ("GET", "/v1/calls/c", &["subscribe"]),
    ("GET", "/v1/calls/c/turns", &["subscribe"]),
    ("GET", "/v1/calls/c/events", &["subscribe"]),
    ("POST", "/v1/calls/c/analyses/summary", &["gateway", "subscribe"]),
    ("DELETE", "/v1/calls/c", &["admin"]),
    ("POST", "/v1/chat/completions", &["gateway"]),
    ("POST", "/chat/completions", &["gateway"]),
    ("GET", "/v1/models", &["gateway"]),
    ("GET", "/models", &["gateway"]),
    ("GET", "/v1/models/nobody", &["gateway"]),
    ("GET", "/models/nobody", &["gateway"]),
    ("POST", "/v1/transcripts", &["gateway"]),
    ("GET", "/v1/usage", &["usage"]),
    ("GET", "/metrics", &["metrics"]),
    ("GET", "/healthz", &[]),
    ("GET", "/readyz", &[]),
    ("GET", "/version", &[]),
    ("GET", "/schemas/", &[]),
    ("GET", "/schemas/event.json", &[]),
    ("GET", "/openapi.json", &[]),
    ("GET", "/", &[]),
    ("GET", "/docs", &[]),
    ("GET", "/docs/", &[]),
    ("GET", "/docs/limits", &[]),
];

/// Paths that any key may use; without such a resource they give 404 or 405 with a key, and 401 without. Last: whether
/// errors have OpenAI's format.
const ANY_KEY: &[(&str, &str, u16, bool)] = &[
    ("GET", "/v1/dialects", 200, false),
    ("POST", "/v1/feedback", 404, false),
    ("GET", "/v1/experiments", 404, false),
    ("GET", "/metrics/", 404, false),
    ("GET", "/admin", 404, false),
    ("DELETE", "/v1/calls", 405, false),
    ("POST", "/v1/usage", 405, false),
    ("GET", "/v1/chat/completion", 404, true),
    ("POST", "/chat", 404, true),
    ("GET", "/v1/chat/completions", 405, true),
    ("DELETE", "/v1/models/x", 405, true),
];

/// Sockets, in the same way.
const SOCKETS: &[(&str, &[&str])] = &[
    ("/v1/ingest?call_id=k", &["ingest"]),
    ("/v1/subscribe", &["subscribe"]),
    ("/v3/ws?sample_rate=16000", &["ingest"]),
    ("/v3/ws?sample_rate=16000&llm_gateway=%7B%7D", &["ingest", "gateway"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_with_every_key() {
    let _machine = shared().await;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let daemon = Daemon::start(&format!("[stt]\nupstream = \"ws://{nowhere}\"\n")).await;
    for (method, path, _) in PATHS {
        let reply = ask(&daemon, method, path, None).await;
        assert!(![401, 403].contains(&reply.status), "{path} without any key made: {}", reply.status);
    }
    let mut keys = Vec::new();
    for scope in SCOPES {
        keys.push((vec![scope], create(&daemon, scope, scope).await));
    }
    keys.push((vec!["ingest", "gateway"], create(&daemon, "both-1", "ingest,gateway").await));
    keys.push((vec!["gateway", "subscribe"], create(&daemon, "both-2", "gateway,subscribe").await));
    let gone = create(&daemon, "gone", "admin").await;
    assert_eq!(ask(&daemon, "GET", "/metrics", Some(&gone)).await.status, 200, "a new key holds at once");
    command(&daemon, &["key", "revoke", "gone"]).await;
    let opens =
        |scopes: &[&str], needed: &[&str]| scopes.contains(&"admin") || needed.iter().all(|need| scopes.contains(need));
    for (method, path, needed) in PATHS {
        for bad in [None, Some("sk_wrong"), Some(gone.as_str()), Some("")] {
            let reply = ask(&daemon, method, path, bad).await;
            assert_eq!(reply.status == 401, !needed.is_empty(), "{method} {path} with {bad:?}: {}", reply.status);
            let scheme = (reply.status == 401).then_some("Bearer");
            assert_eq!(reply.header("www-authenticate"), scheme, "{method} {path} with {bad:?}");
        }
        for (scopes, key) in &keys {
            for value in [key.clone(), format!("Bearer {key}"), format!("bearer {key}")] {
                let reply = ask(&daemon, method, path, Some(&value)).await;
                let forbidden = !opens(scopes, needed);
                assert_eq!(reply.status == 403, forbidden, "{method} {path} with {scopes:?}: {}", reply.status);
                assert_ne!(reply.status, 401, "{method} {path} with {scopes:?}");
                assert!(!reply.text().contains(key), "a key comes back: {}", reply.text());
            }
        }
    }
    for (path, needed) in SOCKETS {
        let codes = if path.starts_with("/v3") { (1008, 1008) } else { (4401, 4403) };
        for bad in [None, Some("sk_wrong"), Some(gone.as_str())] {
            let headers: Vec<_> = bad.iter().map(|key| ("authorization", (*key).to_owned())).collect();
            assert_eq!(refused(&daemon, path, &headers).await, Some(codes.0), "{path} with {bad:?}");
        }
        for (scopes, key) in &keys {
            let expected = (!opens(scopes, needed)).then_some(codes.1);
            let found = refused(&daemon, path, &[("authorization", format!("Bearer {key}"))]).await;
            assert_eq!(found, expected, "{path} with {scopes:?}");
        }
    }
    // As a subprotocol, which is never echoed.
    for (scopes, key) in &keys {
        let offered = format!("sidetone.v1, sidetone.key.{key}");
        let found = refused(&daemon, "/v1/subscribe", &[("sec-websocket-protocol", offered.clone())]).await;
        assert_eq!(found, (!opens(scopes, &["subscribe"])).then_some(4403), "{scopes:?} as a subprotocol");
        let upgrade = [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", offered.as_str()),
        ];
        for path in ["/v1/subscribe", "/v1/ingest?call_id=k"] {
            let reply = http::request(daemon.port, "GET", path, &upgrade, None).await;
            assert_eq!(reply.status, 101);
            assert!(reply.headers.iter().all(|(_, value)| !value.contains(key)), "{:?}", reply.headers);
        }
    }
    let ingest = &keys[0].1;
    // Without an STT key of the daemon, no token can be made; an invalid token is refused in either case.
    assert_eq!(refused(&daemon, "/v3/ws?sample_rate=16000&token=nonsense", &[]).await, Some(1008));
    assert_eq!(refused(&daemon, &format!("/v3/ws?sample_rate=16000&token={ingest}"), &[]).await, Some(1008), "no key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn path_without_a_scope_needs_any_key_and_keeps_its_error_form() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let key = create(&daemon, "agent", "ingest").await;
    for (method, path, status, openai) in ANY_KEY {
        let reply = ask(&daemon, method, path, None).await;
        assert_eq!(reply.status, 401, "{method} {path} without a key: {}", reply.text());
        let with = ask(&daemon, method, path, Some(&key)).await;
        assert_eq!(with.status, *status, "{method} {path}: {}", with.text());
        for reply in [reply, with].iter().filter(|reply| reply.status != 200) {
            let body = reply.json();
            let code = if *openai { &body["error"]["code"] } else { &body["code"] };
            assert!(code.is_string(), "{method} {path}: {}", reply.text());
        }
    }
}

/// Compares the documentation's table with the routes; every path in it is requested here with every key.
#[test]
fn every_path_of_the_documentation_is_asked_with_every_key() {
    const PAGE: &str = include_str!("../../../src/docs/security.md");
    let (_, table) = PAGE.split_once("| method | path | scope |").expect("the table of paths");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut seen = 0;
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let (method, pattern) = (cells[1], cells[2]);
        let fits = |path: &str| {
            let path = path.split('?').next().unwrap_or_default();
            let (path, pattern): (Vec<_>, Vec<_>) = (path.split('/').collect(), pattern.split('/').collect());
            path.len() == pattern.len()
                && pattern.iter().zip(&path).all(|(want, have)| want == have || want.starts_with('{'))
        };
        let asked = PATHS.iter().any(|(of, path, _)| *of == method && fits(path))
            || SOCKETS.iter().any(|(path, _)| method == "GET" && fits(path))
            || ANY_KEY.iter().any(|(of, path, ..)| *of == method && fits(path));
        assert!(asked, "{method} {pattern} is a route that no key is tried on");
        seen += 1;
    }
    assert!(seen > 20, "{seen} rows");
}
