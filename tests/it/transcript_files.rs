//! Transcript files: in a request, through `sidetone analyze`, and through `sidetone convert` and a replay, each file
//! gives the same turns; unreadable parts are reported with their place.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sidetone::transcript::{self, Transcript};

use crate::support::daemon::{Daemon, run, run_with};
use crate::support::http;
use crate::support::llm::{MockLlm, Step};
use crate::support::{Json, json, shared};

/// Fixtures by format, as stored.
fn fixtures() -> Vec<(String, PathBuf)> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/transcripts");
    let mut found = Vec::new();
    for format in transcript::FORMATS {
        for entry in std::fs::read_dir(golden.join(format.name())).expect("fixtures") {
            let path = entry.expect("entry").path();
            if path.extension().is_some_and(|extension| extension != "snap") {
                found.push((format.name().to_owned(), path));
            }
        }
    }
    found.sort();
    found
}

fn read(format: &str, path: &Path) -> Transcript {
    let bytes = std::fs::read(path).expect("fixture");
    transcript::read(&bytes, Some(transcript::format(format).expect("format"))).expect("a transcript").1
}

/// A turn's content, independent of its call.
fn essence(turns: &[Json]) -> Vec<Json> {
    let kept = ["turn", "speaker", "text", "start_ms", "end_ms"];
    turns.iter().map(|turn| kept.iter().map(|name| ((*name).to_owned(), turn[*name].clone())).collect()).collect()
}

fn expected(transcript: &Transcript) -> Vec<Json> {
    let turn = |(number, turn): (usize, &transcript::Turn)| json!({"turn": number, "speaker": turn.speaker, "text": turn.text, "start_ms": turn.start_ms, "end_ms": turn.end_ms});
    transcript.turns.iter().enumerate().map(turn).collect()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Runs the binary with `input` on its standard input.
async fn run_on(args: &[&str], input: &str) -> Output {
    let args: Vec<String> = args.iter().map(|&word| word.to_owned()).collect();
    let input = input.to_owned();
    let done = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sidetone"))
            .args(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run the binary");
        child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("write");
        child.wait_with_output().expect("output")
    });
    done.await.expect("join")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_comes_to_the_same_turns_by_request_and_by_replay() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().expect("folder");
    let daemon = Daemon::start("[ingest]\nlinger_ms = 50\nanalyses = []\n").await;
    let url = daemon.url();
    for (format, path) in fixtures() {
        let name = format!("{format}-{}", path.file_stem().expect("name").to_string_lossy());
        let transcript = read(&format, &path);
        let bytes = std::fs::read(&path).expect("fixture");
        // JSON must be UTF-8.
        let text = match bytes.as_slice() {
            [0xff, 0xfe, rest @ ..] => String::from_utf16(
                &rest.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect::<Vec<_>>(),
            )
            .expect("UTF-16"),
            _ => String::from_utf8(bytes).expect("UTF-8"),
        };
        let body = json!({"call_id": name, "format": format, "text": text});
        let reply = daemon.post("/v1/transcripts", &body).await;
        let answer = reply.json();
        assert_eq!((reply.status, &answer["state"]), (200, &json!("completed")), "{name}: {answer}");
        assert_eq!(answer["turns"], transcript.turns.len(), "{name}");
        assert_eq!(answer["transcript"]["format"], json!(format), "{name}");
        assert_eq!(answer["transcript"]["times"], transcript.times.as_str(), "{name}");
        let left_out = answer["transcript"]["left_out"].as_array().map_or(0, Vec::len);
        assert_eq!(left_out, transcript.left_out.len(), "{name}: {answer}");
        let posted = essence(&daemon.turns(&name).await);
        assert_eq!(posted, expected(&transcript), "{name}");

        let recording = folder.path().join(format!("{name}.jsonl")).display().to_string();
        let output = run(&["convert", &path.display().to_string(), "--format", &format, "-o", &recording]).await;
        assert!(output.status.success(), "{name}: {:?}", texts(&output));
        let again = format!("{name}-again");
        let output = run(&["replay", &recording, "--to", &url, "--speed", "max", "--call-id", &again]).await;
        assert!(output.status.success(), "{name}: {:?}", texts(&output));
        assert_eq!(essence(&daemon.turns(&again).await), posted, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_read_is_told_where() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let label = format!("WEBVTT\n\n00:01.000 --> 00:02.000\n<v {}>Hi.", "x".repeat(300));
    for (body, said) in [
        (json!({}), "expected exactly one of turns, recording, text"),
        (json!({"text": "A: b", "turns": [], "format": "text"}), "expected exactly one of turns, recording, text"),
        (json!({"text": "A: b"}), "format: required with text; one of vtt, srt, zoom, teams, otter, text"),
        (
            json!({"text": "A: b", "format": "txt"}),
            "format: no format \"txt\"; there are: vtt, srt, zoom, teams, otter, text",
        ),
        (json!({"text": "A: b", "format": "text", "dialect": "zoom"}), "dialect: only a recording has a dialect"),
        (json!({"turns": [{"text": "a"}], "format": "text"}), "format: only text has a format"),
        (json!({"text": 5, "format": "text"}), "text: "),
        (json!({"text": "", "format": "vtt"}), "text: line 1, column 1: the file is empty"),
        (json!({"text": "\u{feff}Hi", "format": "vtt"}), "text: line 1, column 1: expected WEBVTT"),
        (
            json!({"text": "WEBVTT\n\n00:01.000 --> 00:99.000\nsecret", "format": "teams"}),
            "text: line 3, column 15: expected a time",
        ),
        (json!({"text": "1\n00:01 --> 00:02\n", "format": "srt"}), "text: line 1, column 1: it contains no speech"),
        (
            json!({"text": label, "format": "vtt"}),
            "text: line 3: turn.speaker: 300 bytes as JSON are over the limit of 256 (limits.label_bytes)",
        ),
        (json!({"text": "a\u{0}b", "format": "text"}), "text: line 1, column 2: a NUL character"),
    ] {
        let reply = daemon.post("/v1/transcripts", &body).await;
        let problem = reply.json();
        assert_eq!((reply.status, &problem["code"]), (400, &json!("bad_field")), "{body}: {problem}");
        let detail = problem["detail"].as_str().expect("detail");
        assert!(detail.starts_with(said) && !detail.contains("secret"), "{body}: {detail}");
    }
    // Limits of files apply here too, before anything is stored.
    let text = "x".repeat(300 << 10);
    let reply = daemon.post("/v1/transcripts", &json!({"text": text, "format": "text"})).await;
    assert!(reply.status == 400 && reply.text().contains("transcript_line_bytes"), "{}", reply.text());
    assert_eq!(daemon.get_json("/v1/calls").await["calls"], json!([]));
    let document = http::request(daemon.port, "GET", "/openapi.json", &[], None).await.json();
    let body = &document["paths"]["/v1/transcripts"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    assert!(body["properties"]["text"].is_object(), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_analysed_without_a_daemon() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().expect("folder");
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("write");
        path.display().to_string()
    };
    let good = put(
        "standup.vtt",
        "WEBVTT\n\n00:01.000 --> 00:03.000\n<v Mara Quist>This is terrible, the parcel number 4417 is lost.\n\n\
         00:04.000 --> 00:06.000\n<v Tomas Reyer>I will send you a new one on Friday.\n",
    );
    let broken = put("broken.srt", "1\n00:00:01,000 --> later\nsecret words\n");
    let nothing = put("nothing.txt", "");
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo/call.jsonl").display().to_string();
    let files = [good.as_str(), &broken, &nothing, &recording];

    let output = run(&[&["analyze", "--analyses", "summary,sentiment", "--json"][..], &files].concat()).await;
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{out}\n{err}");
    let lines: Vec<Json> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let named: Vec<&str> = lines.iter().map(|line| line["file"].as_str().expect("file")).collect();
    assert_eq!(named, files, "in the order in which they were given");
    assert_eq!(
        (&lines[0]["source"], &lines[0]["times"], &lines[0]["turns"]),
        (&json!("vtt"), &json!("given"), &json!(2))
    );
    assert!(lines[0]["insights"]["summary"]["value"]["points"].to_string().contains("4417"), "{}", lines[0]);
    assert_eq!((&lines[1]["error"]["line"], &lines[1]["error"]["column"]), (&json!(2), &json!(18)), "{}", lines[1]);
    assert!(lines[2]["error"]["message"].as_str().is_some_and(|message| message.contains("empty")), "{}", lines[2]);
    assert_eq!(
        (&lines[3]["source"], &lines[3]["turns"]),
        (&json!("recording, assemblyai"), &json!(37)),
        "{}",
        lines[3]
    );
    assert!(err.contains(&format!("error: {broken}:2:18: expected a time")) && !err.contains("secret"), "{err}");

    let output = run(&["analyze", &good, "--analyses", "summary,sentiment,sentiment_turn"]).await;
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{out}\n{err}");
    for part in [
        "standup.vtt  2 turns · 0:06 · Mara Quist, Tomas Reyer · vtt",
        "summary",
        "sentiment_turn turn 0",
        "(0:01, Mara Quist)",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(!out.contains('\u{1b}'), "colours go to a terminal only: {out}");
    assert!(err.contains("embedded provider"), "{err}");

    let output = run(&["analyze", &good, &recording, "--markdown"]).await;
    let (out, _) = texts(&output);
    assert!(output.status.success() && out.starts_with("# standup.vtt\n"), "{out}");
    for part in ["\n## Summary\n", "\n## Sentiment\n", "> “", "(0:01, Mara Quist)", "*by local, degraded*"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert_eq!(out.matches("\n## Summary\n").count(), 2, "{out}");

    let output = run_on(&["analyze", "-", "--format", "text", "--json"], "Ann: It is late.\nBob: Very late.\n").await;
    let (out, err) = texts(&output);
    let line: Json = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
    assert_eq!(
        (&line["file"], &line["times"], &line["turns"]),
        (&json!("standard input"), &json!("estimated"), &json!(2))
    );
    let leftover = std::fs::read_dir(std::env::temp_dir()).expect("folder").filter_map(Result::ok);
    let leftover = leftover.filter(|entry| entry.file_name().to_string_lossy().starts_with("sidetone-analyze-"));
    // Other tests may use them now.
    println!("{} folders of daemons that run", leftover.count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_analysed_by_models_and_by_a_daemon_that_runs() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    mock.script(|_| {
        let value = json!({"headline": "A lost *parcel*.", "points": [{"id": "p1", "text": "It is lost.", "speaker": "Ann"}],
            "outcome": null, "evidence": [{"turn": 0, "quote": "is lost"}, {"turn": 1, "quote": "never said"}]});
        Step::Say(value.to_string(), std::time::Duration::ZERO)
    });
    let config = format!(
        "{}\n[routes.asked]\nvariants = [{{ name = \"a\", model = \"mocked\" }}]\n[analyses.summary]\nroute = \"asked\"\n",
        mock.config("")
    );
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("sidetone.toml").display().to_string();
    std::fs::write(&path, &config).expect("write");
    let text = folder.path().join("call.txt").display().to_string();
    std::fs::write(&text, "Ann: [so] the parcel is lost.\nBob: Sorry.\n").expect("write");
    let args = ["analyze", &text, "--analyses", "summary", "--markdown", "--meta", "{\"team\":\"returns\"}"];
    let output = run(&[&args[..], &["--config", &path]].concat()).await;
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{out}\n{err}");
    assert!(
        out.contains("A lost \\*parcel\\*.") && out.contains("“never said” (0:02, Bob, **not in the transcript**)"),
        "{out}"
    );
    assert!(mock.asked_number(mock.count()).expect("asked").prompt().contains("returns"), "meta is in the prompt");

    let daemon = Daemon::start("").await;
    let output = run_with(&args, &[("SIDETONE_URL", &daemon.url())]).await;
    let (out, err) = texts(&output);
    assert!(output.status.success() && out.contains("*by local, degraded*"), "{out}\n{err}");
    let calls = daemon.get_json("/v1/calls").await;
    assert_eq!(calls["calls"].as_array().map(Vec::len), Some(1), "the call is the daemon's: {calls}");
    assert_eq!(calls["calls"][0]["meta"]["team"], "returns");
    let output = run(&["analyze", &text, "--to", &daemon.url(), "--analyses", "sumary"]).await;
    let (_, err) = texts(&output);
    assert!(output.status.code() == Some(1) && err.contains("did you mean \"summary\"?"), "{err}");
    let output = run(&["analyze", &text, "--to", "http://127.0.0.1:9"]).await;
    assert!(output.status.code() == Some(1) && texts(&output).1.contains("no daemon at"), "{:?}", texts(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conversion_replaces_nothing_unasked_and_names_what_is_wrong() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "Notes\n\nAnn Lee  0:03\nOne.\n\nBob  0:06\nTwo.\n").expect("write");
    let file = file.display().to_string();
    let output = run(&["convert", &file, "--title", "A call"]).await;
    let (out, err) = texts(&output);
    let target = folder.path().join("notes.jsonl");
    assert!(
        output.status.success() && out.contains("2 turns (otter) in ") && err.contains("notes.txt:1: a heading"),
        "{out}{err}"
    );
    let written = std::fs::read_to_string(&target).expect("recording");
    assert!(
        written.starts_with("{\"recording\":{\"version\":1,\"dialect\":\"sidetone\",\"title\":\"A call\"}}\n"),
        "{written}"
    );
    let output = run(&["convert", &file]).await;
    let (_, err) = texts(&output);
    assert!(!output.status.success() && err.contains("--force replaces it"), "{err}");
    assert_eq!(std::fs::read_to_string(&target).expect("recording"), written);
    let output = run(&["convert", &file, "--force"]).await;
    assert!(output.status.success(), "{:?}", texts(&output));
    assert!(std::fs::read_to_string(&target).expect("recording").contains("\"title\":\"Notes\""), "the file's own");

    let (out, err) = texts(&run_on(&["convert", "-"], "Ann: One.\nBob: Two.\n").await);
    assert_eq!(out.lines().count(), 4, "{out}{err}");
    assert!(err.contains("standard input: ") && err.contains("estimated"), "{err}");
    for (input, said) in [
        ("WEBVTT\n\nstray\n", "standard input:3:1: expected a cue"),
        ("nothing here", "standard input:1:1: not a known transcript format"),
        ("{\"at_ms\":0,\"message\":{\"type\":\"end\"}}\n", "standard input is a recording already"),
    ] {
        let output = run_on(&["convert", "-", "-o", "-"], input).await;
        let (out, err) = texts(&output);
        assert!(!output.status.success() && out.is_empty() && err.contains(said), "{input}: {out}{err}");
    }
}
