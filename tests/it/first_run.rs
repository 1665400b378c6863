//! The first minutes: `demo` with a vendor's key, with an Ollama and with nothing; `serve` without a configuration;
//! `init`; `healthcheck`. The environment of each process is given completely, so that no key of the machine is used.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::support::daemon::{binary, free_port};
use crate::support::flaky::good;
use crate::support::vendor::{Asked, Dialect, Step, Tokens, Vendor, chunk, reply, stream_head};
use crate::support::{Json, PATIENCE, eventually, json, shared};

const KEY: &str = "sk-test/3k+Qw=ErTy-UiOpAsDfGh";

/// Runs the binary with this environment and no other; `OLLAMA_HOST` names a closed port unless it is given.
async fn run(args: &[&str], env: &[(&str, &str)], dir: &Path) -> Output {
    let mut command = command(args, env, dir);
    let done = tokio::task::spawn_blocking(move || command.output().expect("run the binary"));
    tokio::time::timeout(PATIENCE, done).await.expect("it ends in time").expect("output")
}

fn command(args: &[&str], env: &[(&str, &str)], dir: &Path) -> Command {
    let mut command = Command::new(binary());
    command
        .args(args)
        .env_clear()
        .env("HOME", dir)
        .env("TMPDIR", dir)
        .env("XDG_STATE_HOME", dir.join("state"))
        .env("OLLAMA_HOST", format!("127.0.0.1:{}", free_port()))
        .envs(env.iter().copied())
        .current_dir(dir)
        .stdin(Stdio::null());
    command
}

/// A daemon that ends with the test.
struct Serve(Child);

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Runs the demo; returns both of its output streams, which must contain no colour and no key.
async fn demo(args: &[&str], env: &[(&str, &str)]) -> (String, String) {
    let dir = tempfile::tempdir().expect("folder");
    let mut all = vec!["demo", "--once", "--speed", "40"];
    all.extend(args);
    let output = run(&all, env, dir.path()).await;
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}\n{err}");
    for stream in [&out, &err] {
        assert!(!stream.contains('\u{1b}'), "colours go to a terminal alone: {stream}");
        assert!(!stream.contains(&KEY[..10]), "{stream}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("folder").count(), 0, "the demo leaves nothing behind");
    (out, err)
}

/// An Ollama: its list of models, and OpenAI's chat completions.
async fn ollama(models: Json) -> Vendor {
    Vendor::start(Dialect::OpenAi, move |asked: &Asked| {
        if asked.path == "/api/tags" { reply(200, "", &models.to_string()) } else { good(Dialect::OpenAi, asked) }
    })
    .await
}

fn tags() -> Json {
    json!({"models": [
        {"name": "nomic-embed-text:latest", "model": "nomic-embed-text:latest", "modified_at": "2026-11-20T10:00:00Z",
         "size": 274_302_450, "digest": "0a10", "details": {"parent_model": "", "format": "gguf", "family": "nomic-bert",
         "families": ["nomic-bert"], "parameter_size": "137M", "quantization_level": "F16"}},
        {"name": "llama3.2:3b", "model": "llama3.2:3b", "modified_at": "2026-11-19T10:00:00Z", "size": 2_019_393_189,
         "digest": "a80c", "details": {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
         "parameter_size": "3.2B", "quantization_level": "Q4_K_M"}}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_with_nothing_found_says_so_and_answers_by_itself() {
    let _machine = shared().await;
    let (out, err) = demo(&[], &[("OPENAI_API_KEY", "  ")]).await;
    assert!(err.contains("Looking for models") && err.contains("Found none"), "{err}");
    assert!(err.contains("Starting a daemon"), "{err}");
    assert!(out.contains("insights by the embedded provider, no model is asked"), "{out}");
    assert!(out.contains("local, degraded") && out.contains("call completed"), "{out}");
}

/// Each wire format that a key can lead to: the vendor is asked, its price is known, the limit applies, and the demo's
/// insights come from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_with_a_key_asks_that_vendor_within_its_cost() {
    let _machine = shared().await;
    for (dialect, key, url, path, model, title) in [
        (Dialect::OpenAi, "OPENAI_API_KEY", "OPENAI_BASE_URL", "/v1", "openai/gpt-4.1-mini", "OpenAI"),
        (Dialect::Anthropic, "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "", "anthropic/claude-haiku-4-5", "Anthropic"),
        (
            Dialect::Google,
            "GEMINI_API_KEY",
            "GOOGLE_GEMINI_BASE_URL",
            "",
            "google/gemini-3.1-flash-lite",
            "Google Gemini",
        ),
    ] {
        let vendor = Vendor::start(dialect, move |asked| good(dialect, asked)).await;
        let base = format!("http://{}{path}", vendor.address);
        let (out, err) = demo(&[], &[(key, KEY), (url, &base)]).await;
        assert!(err.contains(&format!("Found {title}: {key} is set")), "{err}");
        assert!(err.contains(&format!("Insights come from {model}")), "{err}");
        assert!(err.contains("cost: at most 0.") && err.contains(" USD for ") && err.contains("--local"), "{err}");
        assert!(out.contains(&format!("insights by {model}")) && !out.contains("degraded"), "{out}");
        assert!(out.contains("call completed") && out.contains(" USD"), "{out}");
        let asked = vendor.asked();
        assert!(!asked.is_empty() && asked.len() <= 21, "{title}: {} requests", asked.len());
        assert!(asked.iter().all(|asked| asked.head.contains(KEY)), "{title}: the key is sent");
        assert!(model.ends_with(&asked[0].model), "{title}: {}", asked[0].model);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_with_an_ollama_asks_its_chat_model_and_costs_nothing() {
    let _machine = shared().await;
    let ollama = ollama(tags()).await;
    let host = ollama.address.to_string();
    let (out, err) = demo(&[], &[("OLLAMA_HOST", &host)]).await;
    assert!(err.contains("Found Ollama") && err.contains("ollama/llama3.2:3b"), "{err}");
    assert!(err.contains("cost: none"), "{err}");
    assert!(out.contains("insights by ollama/llama3.2:3b") && !out.contains("degraded"), "{out}");
    assert!(ollama.asked_for("llama3.2:3b").iter().all(|asked| asked.path == "/v1/chat/completions"));
    assert!(!ollama.asked_for("llama3.2:3b").is_empty());

    // A server without a chat model is named, and no request is sent to it.
    let empty = self::ollama(json!({"models": [tags()["models"][0]]})).await;
    let (out, err) = demo(&[], &[("OLLAMA_HOST", &empty.address.to_string())]).await;
    assert!(err.contains("no chat model") && err.contains("Found none"), "{err}");
    assert!(out.contains("local, degraded"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_asks_nobody_with_local_and_the_named_endpoint_with_endpoint() {
    let _machine = shared().await;
    let (openai, ollama) =
        (Vendor::start(Dialect::OpenAi, |asked| good(Dialect::OpenAi, asked)).await, ollama(tags()).await);
    let (base, host) = (format!("http://{}/v1", openai.address), ollama.address.to_string());
    let env = [("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", base.as_str()), ("OLLAMA_HOST", host.as_str())];
    let (out, err) = demo(&["--local"], &env).await;
    assert!(err.contains("--local") && out.contains("no model is asked"), "{out}{err}");
    assert_eq!((openai.count(), ollama.count()), (0, 0));
    let (_, err) = demo(&["--endpoint", "ollama"], &env).await;
    assert!(err.contains("also found OpenAI") && err.contains("--endpoint openai"), "{err}");
    assert_eq!(openai.count(), 0);
    assert!(ollama.count() > 1);
    let dir = tempfile::tempdir().expect("folder");
    let output = run(&["demo", "--once", "--endpoint", "groq"], &env, dir.path()).await;
    let (_, err) = text(&output);
    assert!(!output.status.success() && err.contains("--endpoint groq: not found; found: openai, ollama"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_goes_on_without_a_model_that_fails_and_says_why() {
    let _machine = shared().await;
    let refuses = |status: u16| {
        move |_: &Asked| {
            let message = format!("Incorrect API key provided: {KEY}");
            reply(status, "", &Dialect::OpenAi.error(status, "invalid_api_key", &message))
        }
    };
    let cuts = |_: &Asked| vec![Step::Close];
    for (what, vendor) in [
        ("with HTTP 401", Vendor::start(Dialect::OpenAi, refuses(401)).await),
        ("with HTTP 500", Vendor::start(Dialect::OpenAi, refuses(500)).await),
        ("did not answer", Vendor::start(Dialect::OpenAi, cuts).await),
    ] {
        let base = format!("http://{}/v1", vendor.address);
        let (out, _) = demo(&[], &[("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", &base)]).await;
        assert_eq!(out.matches("did not answer").count(), 1, "said once: {out}");
        assert!(out.contains(what) && out.contains("the embedded provider (local) answered instead"), "{out}");
        assert!(out.contains("local default, degraded") && out.contains("call completed"), "{out}");
    }
}

/// A model that sends nothing for as long as allowed, and never stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_gives_up_a_model_that_never_finishes_and_has_its_last_insights() {
    let _machine = shared().await;
    let vendor = Vendor::start(Dialect::OpenAi, |asked: &Asked| {
        let blank = chunk(Dialect::OpenAi.text(" ", Tokens::of(asked)));
        let Step::Write(blank) = blank else { return Vec::new() };
        vec![stream_head(), Step::Forever(blank, std::time::Duration::from_millis(300))]
    })
    .await;
    let base = format!("http://{}/v1", vendor.address);
    let (out, _) = demo(&[], &[("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", &base)]).await;
    // Which clock ends it depends on whether the request is streamed.
    let said = |text: &str| out.matches(text).count();
    let explained = said("from now on the embedded provider (local) does") + said("(local) answered instead");
    assert_eq!(explained, 1, "{out}");
    assert!(out.contains("call completed") && !out.contains("without a final"), "{out}");
    for analysis in ["summary", "sentiment"] {
        let last = out.lines().rfind(|line| line.contains(&format!("{analysis} turns 0–36"))).expect("a last insight");
        assert!(last.contains("local default, degraded") && last.contains("final"), "{last}");
    }
}

/// A vendor that charges more than expected: the limit still applies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_stops_asking_where_its_cost_is_reached() {
    let _machine = shared().await;
    let vendor = Vendor::start(Dialect::OpenAi, |asked: &Asked| {
        let steps = good(Dialect::OpenAi, asked);
        let told = serde_json::to_string(&json!({"prompt_tokens": Tokens::of(asked).input})).expect("JSON");
        let (from, to) = (told.trim_matches(['{', '}']).to_owned(), "\"prompt_tokens\":2000000".to_owned());
        steps.into_iter().map(|step| dearer(step, &from, &to)).collect()
    })
    .await;
    let base = format!("http://{}/v1", vendor.address);
    let (out, _) = demo(&[], &[("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", &base)]).await;
    assert_eq!(vendor.count(), 1, "the first answer cost 0.8 USD, more than the cap");
    assert!(out.contains("it was not asked: the rest of 0."), "{out}");
}

/// The same bytes with other numbers; the lengths of bodies and chunks are corrected.
fn dearer(step: Step, from: &str, to: &str) -> Step {
    let Step::Write(bytes) = step else { return step };
    let text = String::from_utf8(bytes).expect("text");
    if !text.contains(from) {
        return Step::Write(text.into_bytes());
    }
    let changed = text.replace(from, to);
    let more = changed.len() - text.len();
    let (head, rest) = changed.split_once("\r\n").expect("a line");
    let changed = match usize::from_str_radix(head, 16) {
        Ok(length) => format!("{:x}\r\n{rest}", length + more),
        Err(_) => {
            let (before, after) = changed.split_once("content-length: ").expect("a length");
            let (length, after) = after.split_once("\r\n").expect("a line");
            format!("{before}content-length: {}\r\n{after}", length.parse::<usize>().expect("a number") + more)
        }
    };
    Step::Write(changed.into_bytes())
}

/// Starts `serve` without a configuration, and returns its log once it contains `until`.
async fn serve_log(args: &[&str], env: &[(&str, &str)], dir: &Path, until: &str) -> String {
    let mut all = vec!["serve", "--listen", "127.0.0.1:0"];
    all.extend(args);
    let path = dir.join("stderr");
    let file = File::create(&path).expect("a file for stderr");
    let child = command(&all, env, dir).stdout(Stdio::null()).stderr(file).spawn().expect("start the binary");
    let _serve = Serve(child);
    eventually(&format!("{until:?} is in the log"), PATIENCE, || async {
        let log = std::fs::read_to_string(&path).expect("the log");
        // Whole lines only.
        log.lines().any(|line| line.contains(until)).then_some(log).filter(|log| log.ends_with('\n'))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_without_configuration_prints_the_lines_that_would_use_what_it_found() {
    let _machine = shared().await;
    let dir = tempfile::tempdir().expect("folder");
    let ollama = ollama(tags()).await;
    let host = ollama.address.to_string();
    let env = [("OPENAI_API_KEY", KEY), ("GROQ_API_KEY", KEY), ("OLLAMA_HOST", host.as_str())];
    let log = serve_log(&[], &env, dir.path(), "default_route").await;
    assert!(log.contains("the models that were found are not used") && log.contains("openai/gpt-4.1-mini"), "{log}");
    assert!(!log.contains(&KEY[..10]), "{log}");
    let lines = &log[log.find("[endpoints.").expect("lines")..];
    let file = dir.path().join("lines.toml");
    std::fs::write(&file, lines).expect("write");
    let checked = run(&["check", "--config", &file.display().to_string()], &env, dir.path()).await;
    let (out, _) = text(&checked);
    assert!(checked.status.success() && out.contains("endpoints openai, groq, ollama"), "{out}\n{lines}");
    assert!(!out.contains("WARN"), "{out}");
    // Ollama is only mentioned: nothing was requested except the list of models.
    assert!(ollama.asked().iter().all(|asked| asked.path == "/api/tags"));
    let golden = lines.replace(&host, "127.0.0.1:PORT");
    insta::with_settings!({snapshot_path => "../golden/cli", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!("serve_suggestion", golden);
    });

    let log = serve_log(&["--log", "json"], &env, dir.path(), "\"configuration\"").await;
    let line = log.lines().find(|line| line.contains("\"configuration\"")).expect("the line");
    let event: Json = serde_json::from_str(line).expect("JSON, as every line of that log");
    assert_eq!(event["configuration"].as_str().map(str::trim), Some(lines.trim()));

    let log = serve_log(&[], &[], dir.path(), "no configuration and no model found").await;
    assert!(!log.contains("[endpoints"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_writes_a_configuration_that_check_takes_and_overwrites_nothing() {
    let _machine = shared().await;
    let dir = tempfile::tempdir().expect("folder");
    let ollama = ollama(tags()).await;
    let host = ollama.address.to_string();
    let with: [(&str, &str); 2] = [("ANTHROPIC_API_KEY", KEY), ("OLLAMA_HOST", &host)];
    for (env, expected) in [(&with[..], "endpoints anthropic, ollama"), (&[], "no endpoints")] {
        let path = dir.path().join(format!("{}.toml", expected.replace([' ', ','], "-")));
        let file = path.display().to_string();
        let done = run(&["init", &file], env, dir.path()).await;
        let (out, err) = text(&done);
        assert!(done.status.success() && out.contains(&file), "{out}{err}");
        let written = std::fs::read_to_string(&path).expect("the file");
        assert!(!(written.clone() + &out + &err).contains(&KEY[..10]), "{written}");
        for name in ["openai", "anthropic", "google", "groq", "mistral", "ollama"] {
            let active = written.contains(&format!("\n[endpoints.{name}]"));
            assert_eq!(active, expected.contains(name), "{written}");
            assert!(written.contains(&format!("[endpoints.{name}]")), "{written}");
        }
        let (out, _) = text(&run(&["check", "--config", &file], env, dir.path()).await);
        assert!(out.starts_with("OK") && out.contains(expected) && !out.contains("WARN"), "{out}");

        let refused = run(&["init", &file], env, dir.path()).await;
        let (_, err) = text(&refused);
        assert!(!refused.status.success() && err.contains("exists; --force overwrites it"), "{err}");
        std::fs::write(&path, "mine").expect("write");
        assert!(!run(&["init", &file], env, dir.path()).await.status.success());
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "mine");
        assert!(run(&["init", &file, "--force"], env, dir.path()).await.status.success());
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), written);
    }
    let nowhere = run(&["init", "no/such/folder/x.toml"], &[], dir.path()).await;
    let (_, err) = text(&nowhere);
    assert!(!nowhere.status.success() && err.contains("cannot write") && err.contains("no/such/folder"), "{err}");
    assert!(run(&["init"], &[], dir.path()).await.status.success());
    assert!(dir.path().join("sidetone.toml").exists(), "the default path");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healthcheck_exits_by_what_readyz_says() {
    let _machine = shared().await;
    let dir = tempfile::tempdir().expect("folder");
    let answers: BTreeMap<&str, (u16, &str)> = [
        ("ready", (200, "ready\n")),
        ("not", (503, r#"{"detail":"the journal is away","code":"journal_unavailable"}"#)),
    ]
    .into();
    for (what, (status, body)) in answers {
        let server = Vendor::start(Dialect::OpenAi, move |_| reply(status, "", body)).await;
        let output = run(&["healthcheck", "--to", &format!("http://{}", server.address)], &[], dir.path()).await;
        let (out, err) = text(&output);
        assert_eq!(output.status.success(), what == "ready", "{out}{err}");
        assert!(if what == "ready" {
            out == "ready\n"
        } else {
            err.contains("503") && err.contains("journal is away")
        });
        assert_eq!(server.asked()[0].path, "/readyz");
    }
    let mute = Vendor::start(Dialect::OpenAi, |_| vec![Step::Hang]).await;
    let to = format!("http://{}", mute.address);
    let output = run(&["healthcheck", "--to", &to, "--timeout-ms", "200"], &[], dir.path()).await;
    assert!(!output.status.success() && text(&output).1.contains("within 200 ms"), "{:?}", text(&output));
    let closed = format!("127.0.0.1:{}", free_port());
    assert!(!run(&["healthcheck", "--to", &closed], &[], dir.path()).await.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_tells_systemd_when_it_listens_and_when_it_stops() {
    let _machine = shared().await;
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).expect("bind");
    let env = [("NOTIFY_SOCKET", path.to_str().expect("path"))];
    let mut command = command(&["serve", "--listen", "127.0.0.1:0"], &env, dir.path());
    let mut serve = Serve(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start"));
    let mut buffer = [0; 64];
    for expected in ["READY=1", "STOPPING=1"] {
        let length = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("in time").expect("a state");
        assert_eq!(std::str::from_utf8(&buffer[..length]), Ok(expected));
        if expected == "READY=1" {
            let pid = rustix::process::Pid::from_raw(serve.0.id() as i32).expect("pid");
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("send SIGTERM");
        }
    }
    let status = std::cell::RefCell::new(&mut serve.0);
    let status = eventually("the daemon ends", PATIENCE, || {
        let status = status.borrow_mut().try_wait().expect("wait");
        async move { status }
    })
    .await;
    assert!(status.success());
}
