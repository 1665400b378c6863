//! Permissions: every path with every key, on a running daemon while its keys are created and revoked.

mod paths;

use futures::{SinkExt as _, StreamExt as _};

use self::paths::SCOPES;
use crate::support::daemon::{Daemon, binary, run, run_with};
use crate::support::http::{self, Reply};
use crate::support::stt::{call, say, texts, turn, vendor};
use crate::support::ws::{self, Client, Options};
use crate::support::{Json, PATIENCE, eventually, json, recording, shared};

async fn command(daemon: &Daemon, words: &[&str]) -> String {
    let config = daemon.config_path().display().to_string();
    let output = run(&[words, &["--config", &config]].concat()).await;
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn create(daemon: &Daemon, name: &str, scopes: &str) -> String {
    let printed = command(daemon, &["key", "create", "--name", name, "--scope", scopes]).await;
    let key = printed.split_whitespace().find(|word| word.starts_with("sk_"));
    key.unwrap_or_else(|| panic!("no key in {printed:?}")).to_owned()
}

async fn ask(daemon: &Daemon, method: &str, path: &str, authorization: Option<&str>) -> Reply {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(authorization.map(|value| ("authorization", value)));
    let body = (method == "POST").then(|| json!({"model":"local","messages":[]}).to_string());
    http::request(daemon.port, method, path, &headers, body).await
}

/// The close code of a refused socket; `None` if it is accepted.
async fn refused(daemon: &Daemon, path: &str, headers: &[(&str, String)]) -> Option<u16> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let mut client = Client::try_connect(&daemon.ws(path), &Options { headers, receive_buffer: None })
        .await
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    let first = client.recv().await.unwrap_or(Json::Null);
    // The vendor's own format, where its SDKs connect.
    let refusal = first["code"] == "unauthenticated" || first["code"] == "forbidden" || first["error_code"] == 1008;
    if refusal { Some(client.close_code().await) } else { None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_tokens_open_only_the_proxy() {
    let _machine = shared().await;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let dir = tempfile::tempdir().expect("folder");
    let file = dir.path().join("stt-key").display().to_string();
    let config = format!("[stt]\nupstream = \"ws://{nowhere}\"\napi_key = \"file:{file}\"\n");
    std::fs::write(&file, "the-vendors").expect("write");
    let mut daemon = Daemon::prepare(&config, dir.path());
    daemon.up().await;
    let key = create(&daemon, "agent", "ingest").await;
    let reply = ask(&daemon, "GET", "/v3/token?expires_in_seconds=60", Some(&key)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let token = reply.json()["token"].as_str().expect("a token").to_owned();
    assert_eq!(refused(&daemon, &format!("/v3/ws?sample_rate=16000&token={token}"), &[]).await, None);
    for path in ["/v1/ingest?call_id=k", "/v1/subscribe"] {
        let join = if path.contains('?') { '&' } else { '?' };
        assert_eq!(refused(&daemon, &format!("{path}{join}token={token}"), &[]).await, Some(4401), "{path}");
    }
    assert_eq!(ask(&daemon, "GET", &format!("/v1/calls?token={token}"), None).await.status, 401);
    assert_eq!(ask(&daemon, "GET", "/v1/calls", Some(&token)).await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_key_any_address_is_served() {
    let _machine = shared().await;
    use std::io::BufRead as _;
    let dir = tempfile::tempdir().expect("folder");
    let daemon = Daemon::prepare("", dir.path());
    let key = create(&daemon, "boss", "admin").await;
    let mut child = std::process::Command::new(binary())
        .args(["serve", "--listen", "0.0.0.0:0", "--config"])
        .arg(daemon.config_path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("start");
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
    let port = line.trim_end().rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let port = port.unwrap_or_else(|| panic!("{line:?}"));
    assert_eq!(http::request(port, "GET", "/v1/calls", &[], None).await.status, 401);
    let reply = http::request(port, "GET", "/v1/calls", &[("authorization", &key)], None).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let _ = child.kill();
    let _ = child.wait();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_listens_where_the_configuration_says_unless_the_command_line_does() {
    let _machine = shared().await;
    use std::io::BufRead as _;
    let dir = tempfile::tempdir().expect("folder");
    let port = crate::support::daemon::free_port();
    let daemon = Daemon::prepare(&format!("[server]\nlisten = \"127.0.0.1:{port}\"\n"), dir.path());
    for (arguments, expected) in [(&[][..], true), (&["--listen", "127.0.0.1:0"], false)] {
        let mut child = std::process::Command::new(daemon.binary())
            .args(["serve", "--config"])
            .arg(daemon.config_path())
            .args(arguments)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("start");
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let _ = child.kill();
        let _ = child.wait();
        assert!(line.starts_with("listening on http://127.0.0.1:"), "{line:?}");
        assert_eq!(line.trim_end().ends_with(&format!(":{port}")), expected, "{arguments:?}: {line:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_list_says_which_folder_it_looked_at() {
    let _machine = shared().await;
    let dir = tempfile::tempdir().expect("folder");
    let mut daemon = Daemon::prepare("", dir.path());
    let folder = dir.path().join("journal").display().to_string();
    let listed = command(&daemon, &["key", "list"]).await;
    assert!(listed.contains(&folder) && listed.contains("no daemon"), "{listed}");
    assert!(!dir.path().join("journal").exists(), "looking makes nothing");
    create(&daemon, "agent", "ingest").await;
    daemon.up().await;
    let listed = command(&daemon, &["key", "list"]).await;
    assert!(listed.contains(&folder) && listed.contains("a daemon runs") && listed.contains("agent"), "{listed}");
    let help = run(&["key", "create", "--help"]).await;
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for scope in SCOPES {
        assert!(help.contains(scope), "{scope}: {help}");
    }
    let typo = run(&["key", "create", "--name", "x", "--scope", "metrcs"]).await;
    let told = String::from_utf8_lossy(&typo.stderr).into_owned();
    assert!(!typo.status.success() && told.contains("'metrics'"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoking_the_last_key_keeps_keys_required() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let key = create(&daemon, "only", "admin").await;
    command(&daemon, &["key", "revoke", "only"]).await;
    eventually("refused", PATIENCE, || async {
        (ask(&daemon, "GET", "/v1/calls", Some(&key)).await.status == 401).then_some(())
    })
    .await;
    assert_eq!(ask(&daemon, "GET", "/v1/calls", None).await.status, 401);
    let listed = command(&daemon, &["key", "list"]).await;
    assert!(listed.contains("only") && !listed.contains(&key), "{listed}");
}

/// A socket that was opened with a key.
async fn open(daemon: &Daemon, path: &str, key: Option<&str>) -> Client {
    let headers = key.map(|key| ("authorization".to_owned(), key.to_owned())).into_iter().collect();
    let options = Options { headers, receive_buffer: None };
    Client::try_connect(&daemon.ws(path), &options).await.unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_keys_open_sockets_are_told_and_closed_and_nobody_elses() {
    let _machine = shared().await;
    let (url, mut connections) = vendor().await;
    let dir = tempfile::tempdir().expect("folder");
    let file = dir.path().join("stt-key").display().to_string();
    std::fs::write(&file, "the-vendors").expect("write");
    let config =
        format!("[stt]\nupstream = \"{url}\"\napi_key = \"file:{file}\"\n[subscribe]\nsubscribe_timeout_ms = 600000\n");
    let mut daemon = Daemon::prepare(&config, dir.path());
    daemon.up().await;
    // Opened before keys existed: it is never revoked.
    let mut early = open(&daemon, "/v1/ingest?call_id=early", None).await;
    early.of_type("welcome").await;
    let leaves = create(&daemon, "leaves", "ingest,subscribe").await;
    let stays = create(&daemon, "stays", "admin").await;
    let reply = ask(&daemon, "GET", "/v3/token?expires_in_seconds=600", Some(&leaves)).await;
    let token = reply.json()["token"].as_str().expect("a token").to_owned();

    // Each kind of socket: its path, what is sent on it, and the close code and error that end it. Those of the proxy
    // also have what their vendor receives.
    let proxied = |id: &str| format!("/v3/ws?sample_rate=16000{}", call(id));
    let spoken = ws::turn(0, "agent", "Hello there.");
    let media = json!({"event": "media", "streamSid": "MZ1"});
    let subscribe = json!({"id": "1", "type": "subscribe", "calls": "*"});
    let rows: [(String, bool, Option<&Json>, u16); 6] = [
        ("/v1/ingest?call_id=k1&stream_id=s1".to_owned(), true, Some(&spoken), 4401),
        ("/v1/ingest?call_id=k2&dialect=twilio".to_owned(), true, Some(&media), 4401),
        ("/v1/subscribe".to_owned(), true, Some(&subscribe), 4401),
        ("/v1/subscribe?idle".to_owned(), true, None, 4401),
        (proxied("k3"), true, None, 1008),
        (format!("{}&token={token}", proxied("k4")), false, None, 1008),
    ];
    let mut sockets = Vec::new();
    let mut vendors = Vec::new();
    for (path, with_key, frame, code) in &rows {
        let mut client = open(&daemon, path, with_key.then_some(leaves.as_str())).await;
        if path.starts_with("/v3") {
            let (mut upstream, _) = connections.recv().await.expect("dialled");
            upstream.send(say(&json!({"type": "Begin", "id": "v", "expires_at": 1}))).await.expect("sent");
            upstream.send(say(&turn(0, true))).await.expect("sent");
            client.of_type("Turn").await;
            vendors.push(upstream);
        } else {
            client.of_type("welcome").await;
        }
        if let Some(frame) = frame {
            client.send(frame).await;
            client.recv().await.unwrap_or_else(|| panic!("{path}: no answer"));
        }
        sockets.push((path, client, *code));
    }
    let mut others = [
        open(&daemon, "/v1/ingest?call_id=k1&stream_id=s2", Some(&stays)).await,
        open(&daemon, "/v1/subscribe", Some(&stays)).await,
        early,
    ];
    command(&daemon, &["key", "revoke", "leaves"]).await;
    // The vendor of a session that ends is notified, and its last messages are kept, as when a client disconnects.
    for mut upstream in vendors {
        let told = tokio::time::timeout(PATIENCE, upstream.next()).await.expect("in time");
        assert_eq!(told.expect("open").expect("a message").to_text().expect("text"), r#"{"type":"Terminate"}"#);
        upstream.send(say(&turn(1, true))).await.expect("sent");
        upstream.send(say(&json!({"type": "Termination"}))).await.expect("sent");
    }
    for (path, mut client, code) in sockets {
        if code == 1008 {
            let error = client.of_type("Error").await;
            assert_eq!(error["error_code"], 1008, "{path}: {error}");
            assert!(error["error"].as_str().is_some_and(|error| error.contains("revoked")), "{path}: {error}");
        } else {
            let error = client.of_type("error").await;
            let told = (&error["code"], &error["fatal"], &error["temporary"]);
            assert_eq!(told, (&json!("unauthenticated"), &json!(true), &json!(false)), "{path}: {error}");
        }
        assert_eq!(client.close_code().await, code, "{path}");
    }
    // Other sockets are not affected; what was acknowledged exists, and no call has ended.
    others[0].of_type("welcome").await;
    for client in [0, 2] {
        others[client].send(&ws::turn(0, "customer", "Good morning.")).await;
        others[client].acked(0).await;
    }
    others[1].send(&json!({"id": "7", "type": "ping"})).await;
    others[1].of_type("pong").await;
    let mut again = open(&daemon, "/v1/ingest?call_id=k1&stream_id=s1", Some(&stays)).await;
    assert_eq!(again.of_type("welcome").await["acked"], 0);
    for (call, expected) in [
        ("k1", &["Hello there.", "Good morning."][..]),
        ("k3", &["Turn 0.", "Turn 1."]),
        ("k4", &["Turn 0.", "Turn 1."]),
    ] {
        eventually(&format!("{call} has its turns"), PATIENCE, || async {
            let reply = ask(&daemon, "GET", &format!("/v1/calls/{call}/turns"), Some(&stays)).await.json();
            let turns = reply["turns"].as_array().cloned().unwrap_or_default();
            (texts(&turns) == expected).then_some(())
        })
        .await;
        let shown = ask(&daemon, "GET", &format!("/v1/calls/{call}"), Some(&stays)).await.json();
        assert_eq!(shown["state"], "open", "{call}: {shown}");
    }
    // Neither the key nor a token made with it is accepted any more.
    assert_eq!(refused(&daemon, &format!("/v3/ws?sample_rate=16000&token={token}"), &[]).await, Some(1008));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_without_a_good_key_says_so_at_once() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let folder = tempfile::tempdir().expect("folder");
    let file = recording::made_up("call", 3, 1).write(folder.path()).display().to_string();
    let out = folder.path().join("out.jsonl").display().to_string();
    let url = daemon.url();
    let key = create(&daemon, "agent", "ingest").await;
    let commands: [&[&str]; 3] = [
        &["replay", &file, "--to", &url, "--speed", "max"],
        &["watch", "--to", &url, "--json"],
        &["record", "call", "--to", &url, "-o", &out],
    ];
    for command in commands {
        for (key, says) in [("", "SIDETONE_KEY"), ("sk_wrong", "SIDETONE_KEY"), (&key, "the scope subscribe")] {
            let ran = tokio::time::timeout(PATIENCE, run_with(command, &[("SIDETONE_KEY", key)])).await;
            let output = ran.unwrap_or_else(|_| panic!("{command:?} with {key:?} goes on"));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{command:?} with {key:?}: {said}");
            assert!(said.contains(says) && !said.contains("sk_"), "{command:?} with {key:?}: {said}");
            assert!(!std::path::Path::new(&out).exists(), "an empty recording is left");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_without_a_daemon_says_what_starts_one() {
    let folder = tempfile::tempdir().expect("folder");
    let file = recording::made_up("call", 3, 1).write(folder.path()).display().to_string();
    let commands: [&[&str]; 6] = [
        &["replay", &file],
        &["watch"],
        &["record", "call"],
        &["models"],
        &["usage"],
        &["usage", "--changes", "--format", "csv"],
    ];
    for command in commands {
        // No server can listen on port 0.
        let nowhere = [("SIDETONE_URL", "http://127.0.0.1:0")];
        let ran = tokio::time::timeout(PATIENCE, run_with(command, &nowhere)).await;
        let output = ran.unwrap_or_else(|_| panic!("{command:?} goes on"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        let steps = ["no daemon at http://127.0.0.1:0", "start one with `sidetone serve`", "name another with --to"];
        assert!(steps.iter().all(|step| said.matches(step).count() == 1), "{command:?}: {said}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error_and_no_panic() {
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("sidetone.toml");
    std::fs::write(&path, format!("[storage]\ndir = {:?}\n", folder.path().join("journal"))).expect("write");
    let config = path.display().to_string();
    let commands: [&[&str]; 5] = [
        &["dialects"],
        &["check", "--config", &config],
        &["models", "--config", &config],
        &["key", "list", "--config", &config],
        &["key", "create", "--name", "unseen", "--scope", "admin", "--config", &config],
    ];
    for command in commands {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("open");
        let output = Command::new(binary()).args(command).stdout(Stdio::from(full)).output().expect("run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        assert!(said.contains("cannot write to standard output") && !said.contains("panicked"), "{command:?}: {said}");
        assert_eq!(command.starts_with(&["key", "create"]), said.contains("key revoke unseen"), "{command:?}: {said}");
    }
}
