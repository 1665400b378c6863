//! Every transcript of one call that the daemon returns, in whatever form and to whichever client: the same turns, with
//! the speakers' own words.

use crate::support::daemon::Daemon;
use crate::support::llm::{MockLlm, Step};
use crate::support::ws::{Client, turn};
use crate::support::{Json, json, shared};

/// Speech that cleaning and normalising could damage: repeated digits, spelled letters, names, other scripts and forms.
const SAID: [(&str, &str); 9] = [
    ("agent", "Thank you for calling Larkfield, this is Maya. May I have your account number?"),
    ("customer", "It's Daniel Okafor, and the account is four four one, seven zero nine."),
    ("customer", "The postcode is B B six, double seven, oh oh four four."),
    ("agent", "So that is four four one, seven zero nine, for Mr. Okafor of New York New York."),
    ("customer", "The refund of 1,250.50 is 3.5 percent short, the reference is A A nine nine nine."),
    ("agent", "I will refund forty four euros on Thursday, and the order is 44 44 10."),
    ("customer", "Die Nummer ist zwei zwei, mo\u{308}chte ich ku\u{308}ndigen."),
    ("customer", "はい、番号は四四一です。"),
    ("agent", "You will get forty four euros at ten ten tomorrow. Goodbye!"),
];

/// Numbers, spelled letters and names (digits, number words, capitalised words) in runs of adjacent words within a
/// sentence: "four four one" is one run, so that a missing digit gives another run.
fn runs(text: &str) -> Vec<Vec<String>> {
    const NUMBERS: &str = "four one seven zero nine six double oh ten forty euros percent";
    let mut runs: Vec<Vec<String>> = vec![Vec::new()];
    for token in text.split_whitespace() {
        let word = token.trim_matches(|character: char| !character.is_alphanumeric());
        let own = word.starts_with(|first: char| first.is_uppercase() || first.is_numeric())
            || NUMBERS.split(' ').any(|number| number == word);
        match runs.last_mut() {
            Some(run) if own => run.push(word.to_owned()),
            _ => runs.push(Vec::new()),
        }
        if token.ends_with(['.', '?', '!', '…']) {
            runs.push(Vec::new());
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

/// Returns true if all numbers and names of `said` occur unchanged in a turn.
fn is_verbatim(said: &str) -> bool {
    let all: Vec<Vec<String>> = SAID.iter().flat_map(|(_, text)| runs(text)).collect();
    runs(said).iter().all(|run| all.contains(run))
}

#[test]
fn verbatim_check_sees_a_digit_that_was_dropped() {
    assert!(is_verbatim("the account is four four one, seven zero nine."));
    assert!(!is_verbatim("the account is four one, seven zero nine."));
    assert!(!is_verbatim("Mr. Okafor of New York"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transcripts_of_a_call_agree_wherever_they_are_given() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    mock.script(|_| Step::Say("{}".to_owned(), std::time::Duration::ZERO));
    let folder = tempfile::tempdir().expect("folder");
    for (name, prompt) in [("all", "{{ transcript }}"), ("one", "{{ before }}{{ speaker }}: {{ text }}")] {
        let dir = folder.path().join(name);
        std::fs::create_dir(&dir).expect("folder");
        std::fs::write(dir.join("v1.j2"), prompt).expect("prompt");
        std::fs::write(dir.join("schema.json"), r#"{"type":"object"}"#).expect("schema");
    }
    let at = folder.path().display();
    let config = format!(
        "{}\n[routes.asked]\nvariants = [{{ name = \"a\", model = \"mocked\" }}]\n\
         [analyses.all]\ndir = \"{at}/all\"\nroute = \"asked\"\non_end = true\n\
         [analyses.one]\ndir = \"{at}/one\"\nroute = \"asked\"\nscope = \"turn\"\ncontext_turns = 2\n\
         [analyses.summary]\nroute = \"local\"\non_end = true\n",
        mock.config("")
    );
    let daemon = Daemon::start(&config).await;
    let url = daemon.ws("/v1/ingest?call_id=c1&stream_id=s_1&offset_ms=0&results=all&analyses=all,one,summary");
    let mut client = Client::connect(&url).await;
    for (order, (speaker, text)) in SAID.into_iter().enumerate() {
        client.send(&turn(order as u64, speaker, text)).await;
    }
    client.acked(SAID.len() as u64 - 1).await;
    client.send(&json!({"type":"end","scope":"call"})).await;
    client.of_type("call.completed").await;

    // The turns themselves, and the events that made them.
    let turns = daemon.turns("c1").await;
    let texts: Vec<&str> = turns.iter().filter_map(|turn| turn["text"].as_str()).collect();
    assert_eq!(texts, SAID.map(|(_, text)| text), "GET turns");
    let events = daemon.events("c1").await;
    let finals: Vec<&Json> =
        events.iter().filter(|event| event["type"] == "turn.final").map(|event| &event["turn"]["text"]).collect();
    assert_eq!(finals, texts, "events");

    // Prompts of analyses.
    let asked = mock.asked();
    let whole =
        asked.iter().map(|asked| asked.prompt()).filter(|prompt| prompt.starts_with("[0] ")).max_by_key(String::len);
    let whole = whole.expect("a prompt with the transcript");
    let lines: Vec<&str> = whole.lines().map(|line| line.split_once("): ").map_or(line, |(_, text)| text)).collect();
    assert_eq!(lines, texts, "{{ transcript }} of an analysis");
    let last = asked
        .iter()
        .map(|asked| asked.prompt())
        .find(|prompt| prompt.ends_with("Goodbye!") && prompt.starts_with("[6] "));
    let last = last.expect("the per-turn prompt of the last turn");
    let lines: Vec<&str> = last.lines().map(|line| line.rsplit_once(": ").map_or(line, |(_, text)| text)).collect();
    assert_eq!(lines, &texts[6..], "{{ before }} and {{ text }}");

    // Completions, in every form.
    for render in ["dialogue", "timed", "plain", "json"] {
        let body = json!({
            "model": "mocked", "messages": [{"role": "user", "content": "{{ transcript }}"}],
            "transcript": {"call_id": "c1", "render": render},
        });
        assert_eq!(daemon.post("/v1/chat/completions", &body).await.status, 200, "{render}");
        let prompt = mock.asked_number(mock.count()).expect("asked").prompt();
        let given: Vec<String> = match serde_json::from_str::<Json>(&prompt) {
            Ok(list) => list
                .as_array()
                .expect("a list")
                .iter()
                .map(|turn| turn["text"].as_str().expect("text").to_owned())
                .collect(),
            Err(_) => prompt
                .lines()
                .map(|line| {
                    line.rsplit_once(": ").filter(|_| render != "plain").map_or(line, |(_, text)| text).to_owned()
                })
                .collect(),
        };
        assert_eq!(given, texts, "completion, {render}");
    }

    // The embedded provider's summary: an extract, with the speakers' own numbers and names.
    let call = daemon.get_json("/v1/calls/c1").await;
    let value = &call["insights"]["summary"]["value"];
    let points = value["points"].as_array().expect("points").iter().map(|point| point["text"].as_str().expect("text"));
    let said: Vec<&str> = points.chain(value["headline"].as_str()).collect();
    assert!(
        said.iter().flat_map(|said| runs(said)).any(|run| run.len() > 3),
        "numbers are what this call is about: {value}"
    );
    for said in said {
        assert!(is_verbatim(said), "{said:?} of {value}");
    }
    let body =
        json!({"model":"local","messages":[{"role":"user","content":"Sum it up."}],"transcript":{"call_id":"c1"}});
    let plain = daemon.post("/v1/chat/completions", &body).await.json();
    for line in plain["choices"][0]["message"]["content"].as_str().expect("text").lines() {
        assert!(is_verbatim(line.split_once(": ").map_or(line, |(_, text)| text)), "{line}");
    }
}
