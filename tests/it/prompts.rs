//! A user's own analysis: `check` finds variables that do not exist in its prompt's scope, and quotes are checked
//! anywhere in its answers.

use std::path::Path;
use std::time::Duration;

use crate::support::daemon::{Daemon, run};
use crate::support::llm::{MockLlm, Step};
use crate::support::{Json, json, shared};

/// An analysis named `own` with this prompt and schema, over a route `asked`.
fn write(folder: &Path, prompt: &str, schema: &Json) -> String {
    std::fs::write(folder.join("v1.j2"), prompt).expect("prompt");
    std::fs::write(folder.join("schema.json"), schema.to_string()).expect("schema");
    format!(
        "[routes.asked]\nvariants = [{{ name = \"a\", model = \"mocked\" }}]\n\
         [analyses.own]\ndir = \"{}\"\nroute = \"asked\"\n",
        folder.display()
    )
}

/// Runs `check` on a per-turn analysis with this prompt; returns whether it passed, and its output.
async fn check(config: &str, prompt: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("folder");
    let own = write(folder.path(), prompt, &json!({"type": "object"})) + "scope = \"turn\"\n";
    let file = folder.path().join("sidetone.toml");
    std::fs::write(&file, format!("{config}\n{own}")).expect("configuration");
    let output = run(&["check", "--config", &file.display().to_string()]).await;
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_of_a_per_turn_prompt_refuses_variables_that_render_nothing() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let config = mock.config("");
    for right in ["{{ speaker }}: {{ text }}", "Turn {{ turn }}, {{ language }}: {{ text }}"] {
        let (passes, printed) = check(&config, right).await;
        assert!(passes, "{right}: {printed}");
    }
    for (wrong, named) in [
        ("{{ turn.text }}", "turn has no member \"text\""),
        ("{{ speaker }}: {{ turn.text }}", "turn has no member \"text\""),
        ("{% if turn.text %}{{ text }}{% endif %}", "turn has no member \"text\""),
        ("{{ text }} {{ mood }}", "unknown variable \"mood\""),
    ] {
        let (passes, printed) = check(&config, wrong).await;
        assert!(!passes, "{wrong}: {printed}");
        let there_are = "there are: before, call_id, language, meta, questions, speaker, text, to, transcript, turn";
        assert!(printed.contains("v1.j2:1:") && printed.contains(named) && printed.contains(there_are), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotes_inside_items_are_checked_and_marked() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let answer = json!({"items": [
        {"text": "a refund", "evidence": [
            {"turn": 0, "quote": "I want my money back"}, {"turn": 0, "quote": "I will sue you"}]},
        {"text": "a date", "why": {"turn": 1, "quote": "on Thursday"}},
        {"text": "a place", "why": {"turn": 1, "quote": "in Lisbon"}},
    ]});
    let said = answer.to_string();
    mock.script(move |_| Step::Say(said.clone(), Duration::ZERO));
    let folder = tempfile::tempdir().expect("folder");
    let own = write(folder.path(), "{{ transcript }}", &json!({"type": "object"})) + "on_end = true\n";
    let daemon = Daemon::start(&(mock.config("") + &own)).await;
    let turns = json!([
        {"speaker": "customer", "text": "I want my money back, please."},
        {"speaker": "agent", "text": "You will have it on Thursday."},
    ]);
    let reply = daemon.post("/v1/transcripts", &json!({"turns": turns, "analyses": ["own"]})).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let value = reply.json()["insights"]["own"]["value"].take();
    let mut marked = answer.clone();
    marked["items"][0]["evidence"][1]["unverified"] = json!(true);
    marked["items"][2]["why"]["unverified"] = json!(true);
    assert_eq!(value, marked);
}
