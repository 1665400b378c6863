//! `sidetone compare` and `sidetone eval` with the bundled call: from recorded answers, the same report is made again
//! without a model.

use std::path::Path;
use std::time::Duration;

use crate::support::daemon::{run, run_with};
use crate::support::llm::{MockLlm, Step, minimal_answer};
use crate::support::{Json, json, shared};

const CALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/demo/call.jsonl");
/// The endpoint's API key.
const KEY: &str = "sk-comparing-5f1c";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries.map(|entry| entry.expect("an entry").path().display().to_string()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_answers_give_the_same_report_without_a_model() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    // The first answer is not valid under its schema and is repaired.
    mock.script(|asked| match asked.number {
        1 => Step::Say("no JSON".to_owned(), Duration::from_millis(5)),
        _ => Step::Say(minimal_answer(asked), Duration::from_millis(5)),
    });
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let endpoint = mock.config("").replace(
        "[models.mocked]",
        "api_key = \"env:COMPARING_KEY\"\nprices = [{ model = \"*\", input = 1, output = 2 }]\n\n[models.mocked]",
    );
    let analyses = "[ingest]\nanalyses = [\"summary\", \"sentiment\"]\n";
    std::fs::write(path("a.toml"), format!("{endpoint}\n{analyses}")).expect("write");
    let rare = "[analyses.summary]\nevery_n_turns = 12\n[analyses.sentiment]\nevery_n_turns = 12\n";
    std::fs::write(path("b.toml"), format!("{endpoint}\n{analyses}{rare}")).expect("write");
    let (answers, often, rarely) =
        (path("answers"), format!("often={}", path("a.toml")), format!("rarely={}", path("b.toml")));
    let compare = async |answering: &str, report: &str| {
        let (html, json) = (path(&format!("{report}.html")), path(&format!("{report}.json")));
        let args = [
            "compare",
            CALL,
            "--variant",
            &often,
            "--variant",
            &rarely,
            answering,
            &answers,
            "--html",
            &html,
            "--json",
            &json,
        ];
        run_with(&args, &[("COMPARING_KEY", KEY)]).await
    };
    let recorded = compare("--record-llm", "first").await;
    assert!(recorded.status.success(), "{}", text(&recorded.stderr));
    let asked = mock.count();
    assert!(asked > 5, "{asked}");
    let table = text(&recorded.stdout);
    for line in ["Cost ", "Requests to models ", "Latency, median ", "Summary: expected latency (EL) "] {
        assert!(table.lines().any(|shown| shown.starts_with(line)), "{line}: {table}");
    }

    mock.refuse();
    for report in ["second", "third"] {
        let replayed = compare("--replay-llm", report).await;
        assert!(replayed.status.success(), "{}", text(&replayed.stderr));
        assert_eq!(text(&replayed.stdout), table, "{report}");
    }
    let read = |name: &str| std::fs::read_to_string(path(name)).expect(name);
    for report in ["second", "third"] {
        assert_eq!(read(&format!("{report}.json")), read("first.json"), "{report}");
        assert_eq!(read(&format!("{report}.html")), read("first.html"), "{report}");
    }
    assert_eq!(mock.count(), asked, "nothing was asked again");

    let report: Json = serde_json::from_str(&read("first.json")).expect("JSON");
    let runs = &report["calls"][0]["runs"];
    let requests = |name: &str| runs[name]["figures"]["requests"].as_u64().expect("a number");
    assert!(requests("often") > requests("rarely"), "{runs}");
    // A request that both variants make with the same words is sent only once.
    assert!(requests("often") + requests("rarely") >= asked, "{asked}");
    // A million input tokens cost a dollar, a million output tokens two.
    let figure = |name: &str| runs["often"]["figures"][name].as_u64().expect(name);
    assert_eq!(figure("cost_pico"), figure("input") * 1_000_000 + figure("output") * 2_000_000);
    let timeline = runs["often"]["timeline"].as_array().expect("a timeline");
    assert!(timeline.iter().all(|entry| entry["insight"]["latency_ms"]["model"].as_u64() >= Some(5)), "{timeline:?}");

    // No file contains the API key, and the error about a missing file names it.
    let kept = files(Path::new(&answers));
    assert!(kept.iter().all(|file| !std::fs::read_to_string(file).expect("a file").contains(KEY)), "{kept:?}");
    let first: Json = serde_json::from_str(&std::fs::read_to_string(&kept[0]).expect("a file")).expect("JSON");
    assert_eq!(first["asked"]["candidates"], json!(["mock/mock-1"]), "{first}");
    for file in &kept {
        std::fs::remove_file(file).expect("remove");
    }
    let missing = compare("--replay-llm", "fourth").await;
    let said = text(&missing.stderr);
    assert!(!missing.status.success() && said.contains("to mock/mock-1 is not recorded"), "{said}");
    assert!(
        said.contains("often: call: ")
            && kept
                .iter()
                .any(|file| said.contains(Path::new(file).file_stem().and_then(|stem| stem.to_str()).expect("a name"))),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_are_compared_with_what_the_embedded_provider_says() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().display().to_string();
    std::fs::copy(CALL, folder.path().join("call.jsonl")).expect("copy");
    let none = run(&["eval", &path]).await;
    assert!(!none.status.success() && text(&none.stderr).contains("has no labels.jsonl"), "{}", text(&none.stderr));
    let labels = [
        json!({"kind": "call", "call_id": "call", "summary": "A customer's line is down for the third time."}),
        json!({"kind": "turn", "call_id": "call", "turn_order": 1, "sentiment": "negative"}),
    ];
    std::fs::write(folder.path().join("labels.jsonl"), labels.map(|label| label.to_string()).join("\n"))
        .expect("write");
    let output = run(&["eval", &path, "--json"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    let group = &report["groups"][0];
    assert_eq!(
        (&report["variant"], &group["calls"], &group["sentiment"]["turns"]),
        (&json!("local"), &json!(1), &json!(1))
    );
    for (figure, share) in [("rouge_1", "100"), ("r1_auc", "50"), ("el_ms", "25"), ("ne", "75"), ("rf", "100")] {
        assert!(group["summary"]["at"][figure][share]["mean"].is_number(), "{figure} {share}: {group}");
    }
    assert_eq!((&group["cost_pico"], &group["tokens"]["input"]), (&json!(0), &json!(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_compared_is_named() {
    let _machine = shared().await;
    for (args, said) in [
        (&["--variant", "a=local"][..], "1 variant; expected 2 to 6"),
        (&["--variant", "a=local", "--variant", "a=local"], "--variant a is given twice"),
        (&["--variant", "a=local", "--variant", "b=gpt"], "variant b: no route or model \"gpt\""),
        (&["--variant", "local"], "expected NAME=ROUTE, NAME=ROUTE:VARIANT or NAME=FILE.toml"),
        (&["--variant", "a=local", "--variant", "b=local", "--replay-llm", "/nowhere"], "/nowhere is not a folder"),
    ] {
        let output = run(&[&["compare", CALL][..], args].concat()).await;
        let error = text(&output.stderr);
        assert!(!output.status.success() && error.contains(said), "{args:?}: {error}");
    }
    let wrong = run(&["compare", "/nowhere.jsonl", "--variant", "a=local", "--variant", "b=local"]).await;
    assert!(text(&wrong.stderr).contains("cannot read /nowhere.jsonl"), "{}", text(&wrong.stderr));
}
