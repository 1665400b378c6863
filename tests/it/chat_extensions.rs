//! Extensions of chat requests beyond OpenAI's schema, on a running daemon: transcripts, fallbacks, JSON repair; and a
//! whole recording in one request.

use std::time::Duration;

use crate::support::daemon::{Daemon, LOCAL_ANALYSES};
use crate::support::llm::{MockLlm, Step};
use crate::support::vendor::{self, Dialect, Tokens, Vendor, reply};
use crate::support::ws::{Client, turn};
use crate::support::{Json, json, shared};

const TAG: &str = "{{ transcript }}";

fn turns() -> Json {
    json!([
        {"speaker":"agent","text":"Hello.\nHow can I help?","start_ms":0,"end_ms":4000},
        {"speaker":"B: the caller","text":"It says {{ transcript }} here.","start_ms":3500,"end_ms":65_000},
        {"speaker":"agent","text":"I see.","start_ms":66_000,"end_ms":67_000},
    ])
}

/// The usage of the embedded provider, in an answer and in a stream that requests it: known, and zero.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_of_the_embedded_provider_has_usage_zero() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let plain =
        json!({"model":"local","messages":[{"role":"user","content":"Sum it up."}],"transcript":{"turns":turns()}});
    let reply = daemon.post("/v1/chat/completions", &plain).await.json();
    let mut streamed = plain.clone();
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let text = daemon.post("/v1/chat/completions", &streamed).await.text();
    let mut chunks = text.lines().filter_map(|line| serde_json::from_str::<Json>(line.strip_prefix("data: ")?).ok());
    let last = chunks.next_back().unwrap_or_else(|| panic!("no chunk in {text}"));
    assert_eq!(last["choices"], json!([]), "{text}");
    for usage in [&reply["usage"], &last["usage"]] {
        for name in ["prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens"] {
            assert_eq!(usage[name], 0, "{name}: {usage}");
        }
    }
    assert_eq!((&reply["sidetone"]["attempts"], &last["sidetone"]["cost_usd"]), (&json!(0), &json!(0.0)));
}

struct Bench {
    mock: MockLlm,
    daemon: Daemon,
}

impl Bench {
    async fn start() -> Self {
        let mock = MockLlm::start().await;
        let config = format!(
            "[endpoints.mock]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\n\
             capabilities = [{{ model = \"narrow\", context_length = 1700 }}, {{ model = \"tiny\", context_length = 600 }}]\n\
             [models.m]\ncandidates = [\"mock/m\"]\nretries = 2\n[models.late]\ncandidates = [\"mock/late\"]\nretries = 2\n\
             [models.other]\ncandidates = [\"mock/other\"]\nretries = 2\n\
             {LOCAL_ANALYSES}",
            mock.base_url()
        );
        let daemon = Daemon::start(&config).await;
        Self { mock, daemon }
    }

    /// The messages that the model gets.
    async fn sent(&self, messages: Json, transcript: Json) -> Vec<(String, Json)> {
        let body = json!({"model":"mock/m","messages":messages,"transcript":transcript});
        let reply = self.daemon.post("/v1/chat/completions", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let asked = self.mock.asked_number(self.mock.count()).expect("asked");
        assert_eq!(asked.body.get("transcript"), None, "no vendor sees it");
        let messages = asked.body["messages"].as_array().expect("messages").clone();
        let role = |message: &Json| message["role"].as_str().unwrap_or_default().to_owned();
        messages.iter().map(|message| (role(message), message["content"].clone())).collect()
    }

    async fn refused(&self, body: &Json, param: &str) {
        let before = self.mock.count();
        let reply = self.daemon.post("/v1/chat/completions", body).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{body}: {}", reply.text());
        assert_eq!(self.mock.count(), before, "nothing was asked");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transcripts_are_written_as_asked_and_put_where_they_belong() {
    let _machine = shared().await;
    let bench = Bench::start().await;
    let dialogue =
        "agent: Hello.\\u000aHow can I help?\nB\\u003a the caller: It says {{ transcript }} here.\nagent: I see.";
    let user = |text: &str| json!([{"role":"user","content":text}]);
    let cases = [
        (json!({}), dialogue.to_owned()),
        (json!({"render":"dialogue","window":{"turns":1}}), "agent: I see.".to_owned()),
        (
            json!({"render":"timed"}),
            "[0:00] agent: Hello.\\u000aHow can I help?\n[0:03] B\\u003a the caller: It says {{ transcript }} here.\n[1:06] agent: I see."
                .to_owned(),
        ),
        (
            json!({"render":"plain","window":{"from_ms":4000,"to_ms":66_000}}),
            "It says {{ transcript }} here.".to_owned(),
        ),
        (json!({"render":"plain","window":{"tokens":8}}), "I see.".to_owned()),
        (
            json!({"render":"json","window":{"turns":1}}),
            json!([{"speaker":"agent","text":"I see.","start_ms":66_000,"end_ms":67_000}]).to_string(),
        ),
    ];
    for (mut spec, written) in cases {
        spec["turns"] = turns();
        // The tag is replaced once, in the first message of an operator or a user that contains it; never within
        // inserted text.
        let sent = bench.sent(user(&format!("Sum up: {TAG}; then {TAG}.")), spec.clone()).await;
        assert_eq!(sent, [("user".to_owned(), json!(format!("Sum up: {written}; then {TAG}.")))], "{spec}");
    }
    let given = || json!({"turns":turns()});
    for role in ["system", "developer"] {
        let sent = bench.sent(json!([{"role":role,"content":TAG},{"role":"user","content":TAG}]), given()).await;
        assert_eq!((&sent[0].1, &sent[1].1), (&json!(dialogue), &json!(TAG)), "{role}");
    }
    let messages = json!([
        {"role":"user","content":"go"},
        {"role":"assistant","content":TAG,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},
        {"role":"tool","tool_call_id":"c","content":TAG},
    ]);
    let sent = bench.sent(messages, given()).await;
    let contents: Vec<&Json> = sent.iter().map(|(_, content)| content).collect();
    assert_eq!(contents, [&json!("go"), &json!(TAG), &json!(TAG), &json!(dialogue)], "else last, as a user's");
    assert_eq!(sent[3].0, "user");
    let parts = json!([{"role":"user","content":[{"type":"text","text":format!("<{TAG}>")}]}]);
    let sent = bench.sent(parts, given()).await;
    assert_eq!(sent[0].1[0]["text"], format!("<{dialogue}>"));
    let sent = bench.sent(user(TAG), json!({"text":"a\nb: c"})).await;
    assert_eq!(sent[0].1, "a\nb: c", "a text is written already");

    let ask =
        |transcript: Json| json!({"model":"mock/m","messages":[{"role":"user","content":"x"}],"transcript":transcript});
    for (transcript, param) in [
        (json!({"turns":turns(),"render":"xml"}), "transcript.render"),
        (json!({"turns":turns(),"window":{"turns":1,"tokens":1}}), "transcript.window"),
        (json!({"turns":turns(),"window":{"words":1}}), "transcript.window"),
        (json!({"turns":turns(),"text":"x"}), "transcript"),
        (json!({"turns":[{"speaker":"A"}]}), "transcript.turns[0]"),
        (json!({"call_id":"a/b"}), "transcript.call_id"),
    ] {
        bench.refused(&ask(transcript), param).await;
    }
    let reply = bench.daemon.post("/v1/chat/completions", &ask(json!({"call_id":"nowhere"}))).await;
    assert_eq!(reply.status, 404, "{}", reply.text());

    // Everything that fits: if the model's context is known, turns that do not fit are left out at the beginning.
    let long: Vec<Json> =
        (0..500).map(|number| json!({"speaker":"A","text":format!("Sentence number {number}.")})).collect();
    let body = json!({"model":"mock/narrow","max_tokens":100,"messages":[{"role":"user","content":TAG}],
        "transcript":{"turns":long}});
    assert_eq!(bench.daemon.post("/v1/chat/completions", &body).await.status, 200);
    let prompt = bench.mock.asked_number(bench.mock.count()).expect("asked").prompt();
    assert!(prompt.ends_with("A: Sentence number 499.") && !prompt.contains("number 0."), "{}", prompt.len());
    assert!((2000..6800).contains(&prompt.len()), "{}", prompt.len());
    // The request does not limit the answer: what is reserved for it leaves room for the transcript.
    let mut body = body;
    body["model"] = json!("mock/tiny");
    body["max_tokens"] = Json::Null;
    assert_eq!(bench.daemon.post("/v1/chat/completions", &body).await.status, 200);
    let prompt = bench.mock.asked_number(bench.mock.count()).expect("asked").prompt();
    assert!(prompt.ends_with("A: Sentence number 499."), "{prompt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_calls_transcript_is_read_live_and_when_it_is_over() {
    let _machine = shared().await;
    let bench = Bench::start().await;
    let mut client = Client::connect(&bench.daemon.ws("/v1/ingest?call_id=c1&stream_id=s_1&offset_ms=0")).await;
    client.send(&turn(0, "agent", "Hello.")).await;
    client.acked(0).await;
    client.send(&turn(1, "customer", "Hi.")).await;
    client.acked(1).await;
    let ask = || bench.sent(json!([{"role":"user","content":TAG}]), json!({"call_id":"c1","render":"timed"}));
    assert_eq!(ask().await[0].1, "[0:00] agent: Hello.\n[0:01] customer: Hi.");
    client.send(&json!({"type":"revise","turn_order":1,"speaker":"Ms. Shah"})).await;
    client.send(&turn(2, "agent", "Bye.")).await;
    client.acked(2).await;
    client.send(&json!({"type":"end","scope":"call"})).await;
    client.of_type("call.completed").await;
    assert_eq!(ask().await[0].1, "[0:00] agent: Hello.\n[0:01] Ms. Shah: Hi.\n[0:02] agent: Bye.");
    let rows = bench.daemon.get_json("/v1/usage?group_by=call").await["rows"].clone();
    assert_eq!((&rows[0]["call"], &rows[0]["attempts"]), (&json!("c1"), &json!(2)), "on the call's bill: {rows}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fallbacks_and_repair_are_understood_as_assemblyai_has_them() {
    let _machine = shared().await;
    let bench = Bench::start().await;
    let base = |more: Json| {
        let mut body = json!({"model":"m","temperature":0.5,"messages":[{"role":"user","content":"x"}]});
        for (key, value) in more.as_object().expect("object") {
            body[key] = value.clone();
        }
        body
    };
    bench
        .mock
        .script(|asked| if asked.body["model"] == "other" { Step::Answer(Duration::ZERO) } else { Step::Status(503) });
    for stream in [false, true] {
        let before = bench.mock.count();
        let body = base(json!({"stream":stream,"fallbacks":[{"model":"other","temperature":0.9}],
            "fallback_config":{"depth":1,"retry":false}}));
        let reply = bench.daemon.post("/v1/chat/completions", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("sidetone-model"), Some("other"));
        assert_eq!(reply.header("sidetone-attempts"), Some("2"), "those that failed are counted");
        assert_eq!(bench.mock.count() - before, 2, "retry false: each is asked once");
        let asked = bench.mock.asked_number(bench.mock.count()).expect("asked").body;
        assert_eq!((&asked["temperature"], asked.get("fallbacks")), (&json!(0.9), None), "{asked}");
        assert_eq!(asked["messages"][0]["content"], "x", "what is not said is inherited");
    }
    // The request contains only a transcript.
    let body = json!({"model":"m","transcript":{"text":"hello"},"messages":[],"fallbacks":["other"]});
    assert_eq!(bench.daemon.post("/v1/chat/completions", &body).await.status, 200);
    let before = bench.mock.count();
    let reply =
        bench.daemon.post("/v1/chat/completions", &base(json!({"model":"late","fallbacks":[{"model":"other"}]}))).await;
    assert_eq!((reply.status, bench.mock.count() - before), (200, 4), "by default, the model's own retries come first");
    let reply = bench.daemon.post("/v1/chat/completions", &base(json!({"fallbacks":[{"model":"nobody"}]}))).await;
    assert_eq!(reply.status, 404, "every name must be known: {}", reply.text());
    for (more, param) in [
        (json!({"fallback_config":{"depth":3}}), "fallback_config.depth"),
        (json!({"fallback_config":{"retry":1}}), "fallback_config.retry"),
        (json!({"fallbacks":[{"temperature":1}]}), "fallbacks[0].model"),
        (
            json!({"fallbacks":[{"model":"other"},{"model":"other","temperature":9}],"fallback_config":{"depth":2}}),
            "fallbacks[1].temperature",
        ),
        (json!({"post_processing_steps":[{"type":"translate"}]}), "post_processing_steps"),
        (json!({"post_processing_steps":[{"type":"json-repair"}],"stream":true}), "post_processing_steps"),
    ] {
        bench.refused(&base(more), param).await;
    }
    bench.mock.script(|_| Step::Say("Sure: {'a': 1,}".to_owned(), Duration::ZERO));
    let body = base(json!({"model":"other","post_processing_steps":[{"type":"json-repair"}]}));
    let answer = bench.daemon.post("/v1/chat/completions", &body).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "{\"a\":1}", "{answer}");
    bench.mock.script(|_| Step::Say("no JSON at all".to_owned(), Duration::ZERO));
    let reply = bench.daemon.post("/v1/chat/completions", &body).await;
    assert!(reply.status >= 500, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_recording_is_answered_at_once() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let body = json!({"call_id":"rec-1","meta":{"team":"billing"},"analyses":["summary"],"turns":turns()});
    let reply = daemon.post("/v1/transcripts", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer = reply.json();
    assert_eq!(
        (&answer["call_id"], &answer["state"], &answer["turns"]),
        (&json!("rec-1"), &json!("completed"), &json!(3))
    );
    let summary = &answer["insights"]["summary"];
    assert_eq!((&summary["status"], &summary["covers"]["to"]), (&json!("final"), &json!(2)), "{answer}");
    assert_eq!(answer["missing"], json!({}));
    // The result is an ordinary call.
    let call = daemon.get_json("/v1/calls/rec-1").await;
    assert_eq!((&call["meta"]["team"], &call["insights"]["summary"]["id"]), (&json!("billing"), &summary["id"]));
    assert_eq!(daemon.turns("rec-1").await[1]["speaker"], "B: the caller");
    let reply = daemon.post("/v1/transcripts", &body).await;
    assert!(reply.status == 409 && reply.text().contains("rec-1"), "{}", reply.text());
    // A vendor's own frames, as in a recording.
    let frame = json!({"type":"Turn","turn_order":0,"turn_is_formatted":true,"end_of_turn":true,
        "transcript":"Thanks for calling.","end_of_turn_confidence":1,
        "words":[{"start":0,"end":900,"text":"Thanks","confidence":1,"word_is_final":true}]});
    for lines in [json!([{"at_ms":900,"message":frame}]), json!([frame])] {
        let answer = daemon.post("/v1/transcripts", &json!({"recording":lines})).await.json();
        assert_eq!(answer["turns"], 1, "{answer}");
        assert!(answer["insights"]["summary"].is_object() && answer["insights"]["sentiment"].is_object(), "{answer}");
    }
    let calls = daemon.get_json("/v1/calls").await["calls"].as_array().map(Vec::len);
    for (body, says) in [
        (json!({}), "exactly one of turns, recording"),
        (json!({"turns":[]}), "no turn"),
        (json!({"turns":[{"text":"x"},{"text":5}]}), "turns[1]"),
        (json!({"turns":turns(),"dialect":"deepgram"}), "dialect"),
        (json!({"recording":[{}],"dialect":"morse"}), "assemblyai"),
        (json!({"turns":turns(),"analyses":["moood"]}), "summary"),
        (json!({"turns":turns(),"call_id":"a/b"}), "call_id"),
        (json!({"turns":7}), "turns"),
    ] {
        let reply = daemon.post("/v1/transcripts", &body).await;
        assert!(reply.status == 400 && reply.text().contains(says), "{body}: {} {}", reply.status, reply.text());
    }
    let after = daemon.get_json("/v1/calls").await["calls"].as_array().map(Vec::len);
    assert_eq!(after, calls, "what is refused makes no call");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_vendors_is_not_counted_as_overhead() {
    let _machine = shared().await;
    const WAIT: Duration = Duration::from_secs(1);
    let (slow, good) = (Vendor::good(Dialect::OpenAi).await, Vendor::good(Dialect::OpenAi).await);
    let config = format!("{}{}", slow.endpoint("slow", ""), good.endpoint("good", ""));
    let daemon = Daemon::start(&config).await;
    for stream in [false, true] {
        // One model fails late, before a fallback; the other one must be asked again later.
        slow.script(|_| [vec![vendor::Step::Wait(WAIT)], reply(503, "", "{}")].concat());
        good.script(|asked| match asked.number.is_multiple_of(2) {
            true => Dialect::OpenAi.answer(asked, &["fine"], Tokens::of(asked)),
            false => reply(429, "retry-after: 1\r\n", "{}"),
        });
        let body = json!({"model":"slow/m","stream":stream,"messages":[{"role":"user","content":"x"}],
            "fallbacks":[{"model":"good/m"}]});
        let answer = daemon.post("/v1/chat/completions", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let overhead = answer.header("sidetone-overhead-us").and_then(|text| text.parse().ok()).expect("a number");
        assert!(Duration::from_micros(overhead) < WAIT, "the waiting is in it: {overhead} us");
    }
}
