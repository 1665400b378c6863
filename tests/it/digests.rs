//! Long calls whose oldest turns become digests: what an insight claims to cover is what its request held, at every
//! revision, whatever the model does; and what is asked never changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sidetone::context::tokens::estimate;

use crate::support::daemon::Daemon;
use crate::support::llm::{Asked, MockLlm, Step};
use crate::support::model::{assert_dense, assert_turns, offset_of, turns_of};
use crate::support::producer::{Fleet, Producer};
use crate::support::recording;
use crate::support::{Json, json, shared};

const HIGH_WATER: u64 = 2_000;

fn is_digest(asked: &Asked) -> bool {
    asked.schema_name() == "digest"
}

/// What a request shows between the delimiters of the transcript.
#[derive(Debug, Default)]
struct Shown {
    /// Turns of digests.
    digested: BTreeSet<u64>,
    /// The newest line of each turn that has one; a withdrawn turn has none.
    lines: BTreeMap<u64, String>,
}

fn shown(prompt: &str) -> Shown {
    let (_, after) = prompt.rsplit_once("\n<transcript>\n").expect("a transcript");
    let (transcript, _) = after.split_once("</transcript>").expect("its end");
    let mut shown = Shown::default();
    for line in transcript.lines() {
        if let Some(turns) = line.strip_prefix("In short, turns ").and_then(|rest| rest.strip_suffix(':')) {
            let (from, to) = turns.split_once(" to ").expect("a range");
            shown.digested.extend(from.parse::<u64>().expect("a turn")..=to.parse().expect("a turn"));
        } else if let Some((number, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            let number = number.parse().expect("a turn");
            match rest {
                "(withdrawn)" => drop(shown.lines.remove(&number)),
                _ => drop(shown.lines.insert(number, line.to_owned())),
            }
        }
    }
    shown
}

/// An answer with a claim about every eighth turn of the request.
fn claims(asked: &Asked) -> String {
    let turns: Vec<u64> = shown(&asked.prompt()).lines.into_keys().collect();
    let claim = |turn: &u64| json!({"text": "Something was said about it.", "turns": [turn]});
    json!({"claims": turns.iter().step_by(8).map(claim).collect::<Vec<_>>()}).to_string()
}

/// The text without characters that escaping or marks may change.
fn bare(text: &str) -> String {
    text.chars().filter(|character| character.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The turns with text as the call had them at a revision of its context.
fn turns_at(events: &[Json], revision: u64) -> BTreeMap<u64, String> {
    let changes = events.iter().filter(|event| event["turn"]["turn"].is_u64());
    let mut turns = BTreeMap::new();
    for event in changes.take(usize::try_from(revision).expect("few")) {
        let (number, text) = (event["turn"]["turn"].as_u64().expect("a turn"), &event["turn"]["text"]);
        match text.as_str().unwrap_or_default() {
            text if text.trim().is_empty() => drop(turns.remove(&number)),
            text => drop(turns.insert(number, bare(text))),
        }
    }
    turns
}

/// Checks an insight against the request that made it. Returns whether that had a digest.
fn check(mock: &MockLlm, insight: &Json, events: &[Json]) -> bool {
    let number = insight["provenance"]["usage"]["output"].as_u64().expect("usage");
    let asked = mock.asked_number(number).unwrap_or_else(|| panic!("no request {number}"));
    let (covers, shown) = (&insight["covers"], shown(&asked.prompt()));
    let turns = turns_at(events, covers["revision"].as_u64().expect("a revision"));
    let digested: BTreeSet<u64> = shown.digested.iter().copied().filter(|turn| turns.contains_key(turn)).collect();
    let verbatim: Vec<u64> = shown.lines.keys().copied().filter(|turn| !shown.digested.contains(turn)).collect();
    let optional = |turn: Option<u64>| turn.map_or(Json::Null, Json::from);
    let all = || digested.iter().chain(&verbatim).copied();
    let expected = json!({"from": optional(all().min()), "to": optional(all().max()), "turns": all().count(),
        "digest_to": optional(digested.last().copied()), "verbatim_from": optional(verbatim.first().copied()),
        "revision": covers["revision"]});
    for (field, expected) in expected.as_object().expect("an object") {
        assert_eq!(&covers[field], expected, "{field} of request {number}: {covers}");
    }
    for (turn, line) in &shown.lines {
        let said = turns.get(turn).unwrap_or_else(|| panic!("turn {turn} has a line in request {number}"));
        assert!(bare(line).ends_with(said), "turn {turn} of request {number}: {line}");
    }
    // The newest turns, as far as they have a quarter of the tokens: digests and corrections have some, and the mock counts
    // more tokens than are estimated.
    let newest = turns.keys().rev().take(20).map(|turn| shown.lines.get(turn).map_or(0, |line| estimate(line)));
    let fitting = newest.scan(0, |sum, tokens| Some(*sum + tokens).inspect(|now| *sum = *now));
    let fitting = fitting.take_while(|sum| *sum <= HIGH_WATER / 4).count();
    let kept: Vec<&u64> = turns.keys().rev().take(fitting).collect();
    assert!(kept.iter().all(|turn| shown.lines.contains_key(turn)), "{kept:?} stay in request {number}");
    let tokens: u64 = shown.lines.values().map(|line| estimate(line)).sum();
    assert!(tokens <= HIGH_WATER + HIGH_WATER / 4, "request {number} has {tokens} tokens of turns");
    !digested.is_empty()
}

/// The system text of a request, and its instructions without the earlier value, which changes.
fn asks(asked: &Asked) -> (String, String) {
    let user = asked.text_of("user");
    let (_, tail) = user.rsplit_once("</transcript>").expect("a tail");
    let kept = tail.lines().filter(|line| !line.contains("(data): "));
    (asked.text_of("system"), kept.collect::<Vec<_>>().join("\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recording_with_a_small_window_is_covered_as_its_requests_say() {
    let _machine = shared().await;
    let Some(recordings) = recording::all() else { return };
    let mock = MockLlm::start().await;
    // Some digests fail, some are empty or about other turns, and some are late.
    mock.script(|asked| match (is_digest(asked), asked.number % 9) {
        (false, _) => Step::Answer(Duration::from_millis(asked.number % 5)),
        (true, 0) => Step::Say("I cannot do that.".to_owned(), Duration::ZERO),
        (true, 1) => Step::Say(json!({"claims": []}).to_string(), Duration::ZERO),
        (true, 2) => Step::Say(json!({"claims": [{"text": "x", "turns": [999_999]}]}).to_string(), Duration::ZERO),
        (true, 3) => Step::Say(claims(asked), Duration::from_millis(300)),
        (true, _) => Step::Say(claims(asked), Duration::ZERO),
    });
    let config = format!(
        "{}\n[ingest]\nanalyses = [\"summary\", \"sentiment\"]\nlinger_ms = 50\n\
         [analyses.summary]\nevery_n_turns = 2\ndebounce_ms = 0\nmax_context_tokens = {HIGH_WATER}\n\
         [analyses.sentiment]\nevery_n_turns = 5\nmax_context_tokens = {HIGH_WATER}\n",
        mock.config("")
    );
    let daemon = Daemon::start(&config).await;
    let fleet = std::sync::Arc::new(Fleet::default());
    let mut feeding = tokio::task::JoinSet::new();
    for recording in &recordings {
        let producer = Producer::assemblyai(daemon.port, &recording.name, recording.texts(), &fleet);
        feeding.spawn(producer.run(Duration::from_secs(240)));
    }
    while let Some(outcome) = feeding.join_next().await {
        let outcome = outcome.expect("join");
        assert!(outcome.completed.is_some(), "errors: {:?}", outcome.errors);
    }
    let (mut checked, mut with_digest) = (0, 0);
    for recording in &recordings {
        let events = daemon.events(&recording.name).await;
        assert_dense(&recording.name, &events);
        let expected = turns_of(recording.frames.iter().map(|(_, frame)| frame));
        assert_turns(&recording.name, &daemon.turns(&recording.name).await, &expected, offset_of(&events));
        let asked = |event: &&Json| event["insight"]["provenance"]["attempts"].as_u64().is_some_and(|made| made > 0);
        for event in events.iter().filter(|event| event["type"] == "insight.updated").filter(asked) {
            with_digest += usize::from(check(&mock, &event["insight"], &events));
            checked += 1;
        }
    }
    let digests = mock.asked().iter().filter(|asked| is_digest(asked)).count();
    println!("{checked} insights checked, {with_digest} of them with digests; {digests} requests for digests");
    assert!(checked >= recordings.len() * 2 && with_digest > 0 && digests > 0);
    // A compaction changes neither the system text nor the instructions.
    let mut asks_of: BTreeMap<String, (String, String)> = BTreeMap::new();
    for asked in mock.asked().iter().filter(|asked| !is_digest(asked)) {
        // The last run asks for whole lists.
        let schema = asked.body["response_format"]["json_schema"].to_string();
        let first = asks_of.entry(schema).or_insert_with(|| asks(asked));
        assert_eq!(*first, asks(asked), "request {}", asked.number);
    }
    let usage = daemon.get_json("/v1/usage?group_by=analysis").await;
    let rows = usage["rows"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["analysis"] == "digest").expect("a row of the digests");
    assert!(row["attempts"].as_u64() >= Some(digests as u64), "{row}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digest_survives_a_kill_of_the_daemon() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    mock.script(|asked| match is_digest(asked) {
        true => Step::Say(claims(asked), Duration::ZERO),
        false => Step::Answer(Duration::ZERO),
    });
    let config = format!(
        "{}\n[ingest]\nanalyses = [\"summary\"]\nlinger_ms = 50\n\
         [analyses.summary]\nevery_n_turns = 1\ndebounce_ms = 0\nmax_context_tokens = {HIGH_WATER}\n",
        mock.config("")
    );
    let mut daemon = Daemon::start(&config).await;
    let recording = recording::made_up("long", 300, 1);
    let texts = recording.texts();
    let fleet = std::sync::Arc::new(Fleet::default());
    let producer = Producer::assemblyai(daemon.port, "long", texts, &fleet);
    let outcome = producer.run(Duration::from_secs(120)).await;
    assert!(outcome.completed.is_some(), "errors: {:?}", outcome.errors);
    daemon.kill9();
    daemon.up().await;
    let asked = mock.asked().iter().filter(|asked| is_digest(asked)).count();
    let path = "/v1/calls/long/analyses/summary?wait_ms=20000";
    let reply = daemon.post(path, &json!({})).await;
    let events = daemon.events("long").await;
    let insight = events.iter().rfind(|event| event["type"] == "insight.updated").expect("an insight");
    assert!(check(&mock, &insight["insight"], &events), "{insight}");
    assert_eq!((reply.status, &insight["insight"]["trigger"]), (200, &json!("manual")));
    let now = mock.asked().iter().filter(|asked| is_digest(asked)).count();
    assert_eq!(now, asked, "nothing is made again");
}
