//! What must stay secret: keys are in no log, error or metric, in no spelling; spoken text is in no log above TRACE.

use crate::support::daemon::{Daemon, run_with};
use crate::support::http;
use crate::support::sink::SocketSink;
use crate::support::vendor::{Asked, Dialect, Vendor, reply};
use crate::support::ws::{Client, Options, encode, turn};
use crate::support::{PATIENCE, eventually, json, shared};

/// Variables of the daemon's environment that contain secrets.
const SECRETS: &[(&str, &str)] = &[
    ("ST_SERVER", "srv/Q8+w3rTy=UiOp-AsDfGhJkLz"),
    ("ST_STT", "stt/Zx9+CvBn=MqWe-RtYuIoPaSd"),
    ("ST_OPENAI", "sk-oai/7h+Jk=LpQw-ErTyUiOpAs"),
    ("ST_ANTHROPIC", "sk-ant/4f+Gh=JkLz-XcVbNmQwEr"),
    ("ST_GOOGLE", "AIza/2d+Fg=HjKl-ZxCvBnMqWeRt"),
    ("ST_SINK", "hook/6s+Df=GhJk-LzXcVbNmQwEr"),
    ("ST_HOOK", "Bearer hdr/1a+Sd=FgHj-KlZxCvBnMq"),
];

/// A refusal that repeats the key, as vendors and their proxies do.
fn echo(dialect: Dialect, asked: &Asked) -> Vec<crate::support::vendor::Step> {
    let names = ["authorization:", "x-api-key:", "x-goog-api-key:"];
    let line = asked.head.lines().find(|line| names.iter().any(|name| line.to_ascii_lowercase().starts_with(name)));
    let value = line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim());
    let key = value.strip_prefix("Bearer ").unwrap_or(value);
    let said = match asked.number % 4 {
        0 => format!("Incorrect key provided: {key}"),
        1 => format!("Incorrect header: {}", base64(format!("{value}:").as_bytes())),
        2 => format!("Incorrect key in ?key={}", encode(key)),
        _ => format!("Incorrect key {}***", &key[..12]),
    };
    let status = if asked.number.is_multiple_of(2) { 401 } else { 500 };
    reply(status, "", &dialect.error(status, "invalid_api_key", &said))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// Every spelling in which a secret could be found.
fn spellings(secret: &str) -> Vec<String> {
    let mut all = vec![secret.to_owned(), encode(secret)];
    // Whatever precedes it, one of three alignments is in its Base64.
    all.extend((0..3).map(|skip| base64(&secret.as_bytes()[skip..skip + 12])));
    all.push(base64(secret.as_bytes()));
    all.push(secret[..12].to_owned());
    all.push(encode(&secret[..12]));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_told_in_any_spelling() {
    let _machine = shared().await;
    let dialects = [(Dialect::OpenAi, "openai"), (Dialect::Anthropic, "anthropic"), (Dialect::Google, "google")];
    let mut vendors = Vec::new();
    let mut config = String::new();
    for (dialect, name) in dialects {
        let vendor = Vendor::start(dialect, move |asked| echo(dialect, asked)).await;
        config += &vendor.endpoint(name, &format!("api_key = \"env:ST_{}\"", name.to_uppercase()));
        config += &format!("[models.{name}-m]\ncandidates = [\"{name}/v\"]\nretries = 3\n");
        vendors.push(vendor);
    }
    let sink = SocketSink::start();
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    config += &format!(
        "[gateway]\ndefault_route = \"r\"\n[routes.r]\nvariants = [{{name = \"a\", model = \"openai-m\"}}]\n\
         [server]\nkey = \"env:ST_SERVER\"\n[stt]\nupstream = \"ws://{nowhere}\"\napi_key = \"env:ST_STT\"\n\
         [ingest]\nlinger_ms = 50\nfinal_timeout_ms = 1500\nanalyses = [\"summary\"]\n\
         [analyses.summary]\nevery_n_turns = 1\ndebounce_ms = 0\n\
         [[sink]]\nkind = \"webhook\"\nurl = \"http://{nowhere}/hook\"\nsecret = \"env:ST_SINK\"\n\
         headers = {{ authorization = \"env:ST_HOOK\" }}\n\
         [[sink]]\nkind = \"websocket\"\nurl = \"{}\"\nheaders = {{ authorization = \"env:ST_HOOK\" }}\n",
        sink.url()
    );
    let dir = tempfile::tempdir().expect("folder");
    let mut daemon = Daemon::prepare(&config, dir.path()).with_env("SIDETONE_LOG", "trace");
    for (name, value) in SECRETS {
        daemon = daemon.with_env(name, value);
    }
    daemon.up().await;
    let path = daemon.config_path().display().to_string();
    let made = run_with(&["key", "create", "--name", "agent", "--scope", "admin", "--config", &path], SECRETS).await;
    let made = String::from_utf8_lossy(&made.stdout).into_owned();
    let client_key = made.split_whitespace().find(|word| word.starts_with("sk_")).expect("a key").to_owned();
    let auth = format!("Bearer {client_key}");
    let ask = async |method: &str, path: &str, body: Option<String>| {
        let headers = [("authorization", auth.as_str()), ("content-type", "application/json")];
        http::request(daemon.port, method, path, &headers, body).await
    };
    let mut told = String::new();
    for (_, name) in dialects {
        for stream in [false, true, false, true] {
            let body =
                json!({"model":format!("{name}-m"),"stream":stream,"messages":[{"role":"user","content":"hello"}]});
            let reply = ask("POST", "/v1/chat/completions", Some(body.to_string())).await;
            assert!(reply.status >= 400, "{}", reply.text());
            told += &reply.text();
        }
    }
    assert!(told.contains("withheld"), "the vendors' echoes came this far: {told}");
    let token =
        ask("GET", "/v3/token?expires_in_seconds=60", None).await.json()["token"].as_str().expect("token").to_owned();
    for (path, header) in [
        (format!("/v3/ws?sample_rate=16000&token={token}"), None),
        ("/v3/ws?sample_rate=16000".to_owned(), Some(("authorization", client_key.clone()))),
        (
            "/v1/subscribe".to_owned(),
            Some(("sec-websocket-protocol", format!("sidetone.v1, sidetone.key.{client_key}"))),
        ),
        ("/v1/subscribe".to_owned(), Some(("authorization", format!("Bearer {}", SECRETS[0].1)))),
    ] {
        let headers = header.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let mut client =
            Client::try_connect(&daemon.ws(&path), &Options { headers, receive_buffer: None }).await.expect("connect");
        told += &client.recv().await.unwrap_or_default().to_string();
    }
    let options = Options { headers: vec![("authorization".to_owned(), auth.clone())], receive_buffer: None };
    let mut client =
        Client::try_connect(&daemon.ws("/v1/ingest?call_id=c1&stream_id=s_1"), &options).await.expect("connect");
    client.of_type("welcome").await;
    client.send(&turn(0, "agent", "Hello.")).await;
    client.of_type("insight.failed").await;
    client.send(&json!({"type":"end","scope":"call"})).await;
    client.of_type("call.completed").await;
    told += &client.seen.iter().map(ToString::to_string).collect::<String>();
    eventually("the sink has had it", PATIENCE, || async {
        (!sink.events.lock().expect("lock").is_empty()).then_some(())
    })
    .await;
    for path in ["/metrics", "/v1/usage?group_by=endpoint,key", "/v1/models", "/v1/calls/c1/events", "/nowhere"] {
        told += &ask("GET", path, None).await.text();
    }
    for words in [["key", "list"].as_slice(), &["check"]] {
        let output = run_with(&[words, &["--config", &path]].concat(), SECRETS).await;
        told += &String::from_utf8_lossy(&output.stdout);
        told += &String::from_utf8_lossy(&output.stderr);
    }
    daemon.sigterm();
    daemon.ended(PATIENCE).await;
    let log = std::fs::read_to_string(dir.path().join("stderr")).expect("the log");
    assert!(log.lines().any(|line| line.contains("TRACE")), "the log is not at TRACE");
    let mut found = Vec::new();
    let mut secrets: Vec<(&str, &str)> = SECRETS.to_vec();
    secrets.extend([("client key", client_key.as_str()), ("token", token.as_str())]);
    for (name, secret) in secrets {
        let secret = secret.strip_prefix("Bearer ").unwrap_or(secret);
        for spelling in spellings(secret) {
            let lines = log.lines().map(|line| ("log", line)).chain(told.lines().map(|line| ("answer", line)));
            for (place, line) in lines.filter(|(_, line)| line.contains(&spelling)) {
                found.push(format!("{name} as {spelling} in {place}: {}", line.chars().take(300).collect::<String>()));
            }
        }
    }
    found.truncate(20);
    assert!(found.is_empty(), "{}", found.join("\n"));
    println!("{} bytes of log, {} bytes of answers", log.len(), told.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_is_in_no_log_above_trace() {
    let _machine = shared().await;
    let vendor = Vendor::start(Dialect::OpenAi, |asked| {
        let said = asked.body["messages"].to_string();
        let message = format!("cannot take {}", said.chars().take(4000).collect::<String>());
        reply(
            if asked.number.is_multiple_of(2) { 400 } else { 500 },
            "",
            &Dialect::OpenAi.error(500, "server_error", &message),
        )
    })
    .await;
    let config = vendor.endpoint("e", "")
        + "[models.m]\ncandidates = [\"e/v\"]\n[gateway]\ndefault_route = \"r\"\n\
           [routes.r]\nvariants = [{name = \"a\", model = \"m\"}]\n\
           [ingest]\nlinger_ms = 50\nfinal_timeout_ms = 1500\nanalyses = [\"summary\", \"sentiment_turn\"]\n\
           [analyses.summary]\nevery_n_turns = 1\ndebounce_ms = 0\n";
    let dir = tempfile::tempdir().expect("folder");
    let mut daemon = Daemon::prepare(&config, dir.path()).with_env("SIDETONE_LOG", "debug");
    daemon.up().await;
    let mut client = Client::connect(&daemon.ws("/v1/ingest?call_id=c1&stream_id=s_1")).await;
    client.of_type("welcome").await;
    client.send(&turn(0, "agent", "The zanzibarquartz is late.")).await;
    client.of_type("insight.failed").await;
    let body = json!({"model":"m","messages":[{"role":"user","content":"zanzibarquartz {{ transcript }}"}],
        "transcript":{"call_id":"c1"}});
    for _ in 0..2 {
        assert!(daemon.post("/v1/chat/completions", &body).await.status >= 400);
    }
    client.send_text("{\"type\":\"turn\",\"text\":\"zanzibarquartz\",\"turn_order\":\"zanzibarquartz\"}").await;
    client.send(&json!({"type":"end","scope":"call"})).await;
    client.of_type("call.completed").await;
    let metrics = daemon.get("/metrics").await.text();
    daemon.sigterm();
    daemon.ended(PATIENCE).await;
    let log = std::fs::read_to_string(dir.path().join("stderr")).expect("the log");
    assert!(log.contains("DEBUG"), "the log is not at DEBUG");
    let said: Vec<&str> = log.lines().filter(|line| line.contains("zanzibarquartz")).take(5).collect();
    assert!(said.is_empty(), "{said:#?}");
    assert!(!metrics.contains("zanzibarquartz"));
}
