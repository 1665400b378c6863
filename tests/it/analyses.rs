//! The built-in analyses as a whole: operations on items, per-turn translation, figures without a model.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::daemon::Daemon;
use crate::support::llm::{MockLlm, Step};
use crate::support::ws::{ingest, subscribe, subscriber, turn};
use crate::support::{Json, json, shared};

fn say(answer: &Json) -> Step {
    Step::Say(answer.to_string(), Duration::ZERO)
}

/// Applies changes to a value, as a subscriber does.
fn applied(mut value: Json, changes: &Json) -> Json {
    for change in changes.as_array().expect("changes") {
        let mut fields = change.as_object().expect("a change").clone();
        let op = fields.remove("op").expect("an operation");
        if op == "set" {
            *value.pointer_mut(change["field"].as_str().expect("a field")).expect("a member") = change["value"].clone();
            continue;
        }
        let list = fields.remove("list").expect("a list");
        let items = value.pointer_mut(list.as_str().expect("a pointer")).and_then(Json::as_array_mut).expect("a list");
        let place = |id: &Json, items: &[Json]| items.iter().position(|item| item["id"] == *id);
        match op.as_str() {
            Some("add") => {
                let at = fields.remove("before").and_then(|before| place(&before, items)).unwrap_or(items.len());
                items.insert(at, Json::Object(fields));
            }
            Some("retract") => drop(items.remove(place(&fields["id"], items).expect("an item"))),
            _ => {
                let at = place(&fields["id"], items).expect("an item");
                items[at].as_object_mut().expect("an item").extend(fields);
            }
        }
    }
    value
}

fn operation(op: &str, id: Json, text: Json, evidence: Json) -> Json {
    json!({"op": op, "id": id, "text": text, "owner": null, "due": null, "state": null, "evidence": evidence})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_are_changed_by_operations_and_keep_their_ids() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    mock.script(|asked| {
        let asks_operations = |asked: &crate::support::llm::Asked| {
            let schema = &asked.body["response_format"]["json_schema"]["schema"];
            schema.pointer("/properties/items/items/properties/op").is_some()
        };
        let quote = json!({"turn": 0, "quote": "send you the form"});
        if !asks_operations(asked) {
            let item = |id: &str, text: &str, state: &str| json!({"id": id, "text": text, "owner": "agent", "due": null, "state": state, "evidence": quote});
            return say(&json!({"items": [
                item("", "Write to Ms. Shah.", "open"), item("i1_1", "Send the form.", "done"), item("", "Refund the fee of 12 euros", "open")]}));
        }
        let prompt = asked.prompt();
        if prompt.contains("Nothing more") {
            return say(&json!({"items": []}));
        }
        if !prompt.contains("charged a fee") {
            return say(&json!({"items": [operation("add", json!(null), json!("Send the form."), quote)]}));
        }
        say(&json!({"items": [
            operation("resolve", json!("i1_1"), json!(null), json!(null)),
            operation("retract", json!("i9_9"), json!(null), json!(null)),
            operation("add", json!("new"), json!("Refund the fee of 12 euros."), json!({"turn": 1, "quote": "never said"})),
        ]}))
    });
    let config = format!(
        "{}\n[ingest]\nanalyses = [\"action_items\"]\nlinger_ms = 50\n[analyses.action_items]\nevery_n_turns = 1\n",
        mock.config("")
    );
    let daemon = Daemon::start(&config).await;
    let (mut producer, _) = ingest(&daemon, "call_id=c1").await;
    producer.send(&turn(0, "agent", "I will send you the form.")).await;
    let first = producer.until("the first list", |frame| frame["insight"]["covers"]["to"] == 0).await;
    let first = &first["insight"];
    assert_eq!(first["value"]["items"][0]["id"], "i1_1", "{first}");
    assert_eq!((&first["value"]["items"][0]["state"], first.get("changes")), (&json!("open"), None));
    producer.send(&turn(1, "customer", "Thanks, it came. And I was charged a fee.")).await;
    let second = producer.until("the second list", |frame| frame["insight"]["covers"]["to"] == 1).await;
    let second = &second["insight"];
    assert_eq!(second["dropped_operations"], 1, "{second}");
    assert_eq!(applied(first["value"].clone(), &second["changes"]), second["value"]);
    let shown: Vec<(&Json, &Json)> =
        second["value"]["items"].as_array().expect("items").iter().map(|item| (&item["id"], &item["state"])).collect();
    assert_eq!(shown, [(&json!("i1_1"), &json!("done")), (&json!("i2_1"), &json!("open"))]);
    assert_eq!(second["value"]["items"][1]["evidence"]["unverified"], true, "made up words are marked: {second}");
    let prompt = mock.asked_number(2).expect("asked").prompt();
    assert!(prompt.contains("i1_1") && !prompt.contains("\"quote\":\"send you the form\""), "{prompt}");
    producer.send(&turn(2, "agent", "Nothing more.")).await;
    producer.until("the third list", |frame| frame["insight"]["covers"]["to"] == 2).await;
    // The turn was spoken earlier than the one before it: the last run shows the turns in another order, so a model is
    // asked again.
    let mut early = turn(3, "customer", "Nothing more, thanks.");
    (early["start_ms"], early["end_ms"]) = (json!(10), json!(20));
    producer.send(&early).await;
    producer.send(&json!({"type":"end","scope":"call"})).await;
    producer.of_type("call.completed").await;

    // The last run asks for the whole list, and repeated items keep their ids.
    let events = daemon.events("c1").await;
    let insights: Vec<&Json> =
        events.iter().filter(|event| event["type"] == "insight.updated").map(|event| &event["insight"]).collect();
    let last = insights.last().expect("an insight");
    assert_eq!(last["status"], "final", "{last}");
    let ids: Vec<&str> =
        last["value"]["items"].as_array().expect("items").iter().filter_map(|item| item["id"].as_str()).collect();
    assert_eq!((ids.len(), ids[1], ids[2]), (3, "i1_1", "i2_1"), "{last}");
    let metrics = daemon.get("/metrics").await.text();
    let counted = "sidetone_session_dropped_operations_total{analysis=\"action_items\",reason=\"unknown_id\"} 1";
    assert!(metrics.contains(counted), "{metrics}");

    // The changes of each revision lead from one value to the next.
    let mut value = insights[0]["value"].clone();
    for insight in &insights[1..] {
        value = applied(value, &insight["changes"]);
        assert_eq!(value, insight["value"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn translation_of_a_turn_can_be_read_while_it_is_written() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let answer = json!({"text": "Me robaron la tarjeta: ¡el lunes!", "from": "en", "to": "es"});
    let said = answer.clone();
    mock.script(move |_| say(&said));
    let config = format!(
        "{}\n[ingest]\nanalyses = [\"translation\"]\nlinger_ms = 50\n[analyses.translation]\nto = \"es\"\n",
        mock.config("")
    );
    let daemon = Daemon::start(&config).await;
    let mut reader = subscriber(&daemon).await;
    subscribe(&mut reader, json!({"calls":["c1"],"wait":true,"include":["turns","deltas"]})).await;
    let (mut producer, _) = ingest(&daemon, "call_id=c1").await;
    producer.send(&turn(0, "customer", "My card was stolen on Monday.")).await;
    let insight = reader.of_type("insight.updated").await;
    assert_eq!((&insight["insight"]["turn"], &insight["insight"]["value"]), (&json!(0), &answer));
    let deltas = reader.seen_of("insight.delta");
    let mut text = String::new();
    for delta in &deltas {
        assert_eq!((&delta["analysis"], &delta["turn"]), (&json!("translation"), &json!(0)));
        assert_eq!(delta["offset"], text.chars().count(), "{deltas:?}");
        text.push_str(delta["text"].as_str().expect("text"));
    }
    assert_eq!(text, answer["text"].as_str().expect("text"), "decoded, and nothing else of the answer");
    assert!(deltas.len() > 1, "{deltas:?}");
    let prompt = mock.asked_number(1).expect("asked").prompt();
    assert!(prompt.contains("\"es\"") && prompt.contains("customer: My card was stolen on Monday."), "{prompt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_come_without_a_model_and_whatever_becomes_of_one() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    mock.script(|_| Step::Stall);
    let config = format!(
        "{}\n[ingest]\nanalyses = [\"summary\", \"stats\"]\nlinger_ms = 50\nfinal_timeout_ms = 500\n\
         [analyses.summary]\nevery_n_turns = 1\n[analyses.stats]\nevery_n_turns = 2\n",
        mock.config("")
    );
    let daemon = Daemon::start(&config).await;
    let (mut producer, _) = ingest(&daemon, "call_id=c1").await;
    producer.send(&turn(0, "agent", "How can I help?")).await;
    producer.send(&turn(1, "customer", "My card was stolen.")).await;
    let insight = producer.until("figures", |frame| frame["insight"]["analysis"] == "stats").await;
    let insight = &insight["insight"];
    assert_eq!(
        insight["value"],
        json!({"talk_ms": {"agent": 900, "customer": 900}, "turns": {"agent": 1, "customer": 1}, "silence_ms": 100,
            "overlap_ms": 0, "interruptions": {"agent": 0, "customer": 0}, "longest_turn_ms": 900,
            "response_ms_p50": {"agent": null, "customer": 100}})
    );
    assert_eq!((&insight["covers"]["to"], &insight["covers"]["turns"]), (&json!(1), &json!(2)));
    assert_eq!((&insight["degraded"], &insight["trigger"]), (&json!(false), &json!("turns")));
    let provenance = &insight["provenance"];
    assert_eq!(
        (&provenance["endpoint"], &provenance["attempts"], &provenance["cost_usd"]),
        (&json!("computed"), &json!(0), &json!(0.0)),
        "{provenance}"
    );
    // A manual request works too, and includes the correction.
    producer.send(&json!({"type":"revise","turn_order":1,"speaker":"agent"})).await;
    producer.acked_frames(3).await;
    let by_hand = daemon.post("/v1/calls/c1/analyses/stats?wait_ms=5000", &json!({})).await.json();
    assert_eq!(by_hand["value"]["turns"], json!({"agent": 2}), "{by_hand}");
    producer.send(&json!({"type":"end","scope":"call"})).await;
    let completed = producer.of_type("call.completed").await;
    assert_eq!(completed["missing"]["summary"], "timeout", "{completed}");
    let call = daemon.get_json("/v1/calls/c1").await;
    assert_eq!(call["insights"]["stats"]["status"], "final", "{call}");
    // Runs: by new turns, by the correction, by the manual request (which may come before the correction's own run),
    // and at the end.
    let revs = completed["final"]["stats"].as_u64().expect("a revision");
    assert!((3..=4).contains(&revs) && call["insights"]["stats"]["rev"] == revs, "{completed} {call}");
    assert!(mock.asked().iter().all(|asked| asked.schema_name() == "summary"), "nobody is asked for figures");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posted_transcript_has_figures_and_items_without_any_model() {
    let _machine = shared().await;
    let daemon = Daemon::start("[analyses.action_items]\n[analyses.questions]\n").await;
    let turns: Vec<Json> = [
        ("agent", "How can I help you?"),
        ("customer", "How much is the fee for a second card?"),
        ("agent", "It is 12 euros. I will send you the form by Friday."),
    ]
    .iter()
    .enumerate()
    .map(|(at, (speaker, text))| json!({"speaker": speaker, "text": text, "start_ms": at * 2_000, "end_ms": at * 2_000 + 1_500}))
    .collect();
    let reply = daemon.post("/v1/transcripts", &json!({"turns": turns})).await;
    let answer = reply.json();
    let insights: BTreeMap<String, Json> = answer["insights"]
        .as_object()
        .expect("insights")
        .iter()
        .map(|(name, insight)| (name.clone(), insight.clone()))
        .collect();
    assert_eq!(insights.keys().collect::<Vec<_>>(), ["action_items", "questions", "sentiment", "stats", "summary"]);
    assert_eq!(insights["stats"]["value"]["talk_ms"], json!({"agent": 3_000, "customer": 1_500}));
    assert_eq!(insights["stats"]["degraded"], false);
    let item = &insights["action_items"]["value"]["items"][0];
    assert_eq!(
        (&item["text"], &item["due"]),
        (&json!("I will send you the form by Friday."), &json!("by Friday")),
        "{item}"
    );
    let asked = &insights["questions"]["value"]["questions"][0];
    assert_eq!((&asked["state"], &asked["answer"]), (&json!("answered"), &json!("It is 12 euros.")), "{asked}");
    assert!(asked["id"].as_str().is_some_and(|id| id.starts_with('q')), "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_analysis_of_the_end_runs_once_and_on_demand() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let answer = |id: &str| json!({"id": id, "question": "Was there a greeting?", "answer": "yes", "reason": "So it began.", "evidence": []});
    let answers = move |ids: &[&str]| {
        Step::Say(json!({"answers": ids.iter().map(|id| answer(id)).collect::<Vec<_>>()}).to_string(), Duration::ZERO)
    };
    // Not every question, and one that nobody asked: the model is asked again.
    mock.script(move |asked| match asked.number {
        1 => answers(&[]),
        3 => answers(&["farewell"]),
        _ => answers(&["greeting"]),
    });
    let config = format!(
        "{}\n[ingest]\nanalyses = [\"scorecard\"]\nlinger_ms = 50\n\
         [analyses.scorecard]\nquestions = [{{ id = \"greeting\", text = \"Was there a greeting?\" }}]\n",
        mock.config("")
    );
    let daemon = Daemon::start(&config).await;
    let (mut producer, _) = ingest(&daemon, "call_id=c1").await;
    for order in 0..12 {
        producer.send(&turn(order, "agent", "Good morning to you.")).await;
    }
    producer.acked(11).await;
    assert_eq!(mock.count(), 0, "it has no triggers");
    let by_hand = daemon.post("/v1/calls/c1/analyses/scorecard?wait_ms=5000", &json!({})).await.json();
    assert_eq!((&by_hand["trigger"], &by_hand["status"]), (&json!("manual"), &json!("provisional")), "{by_hand}");
    producer.send(&turn(12, "agent", "Goodbye.")).await;
    producer.send(&json!({"type":"end","scope":"call"})).await;
    let completed = producer.of_type("call.completed").await;
    assert_eq!(completed["final"], json!({"scorecard": 2}), "{completed}");
    let prompt = mock.asked_number(2).expect("asked").prompt();
    assert!(prompt.contains("- greeting: Was there a greeting?"), "{prompt}");
}
