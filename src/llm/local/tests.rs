use std::sync::Arc;

use super::*;
use crate::analysis::{Analysis, Answering, Facts, Form, READING, Registry};
use crate::base::budget::Budget;
use crate::context::{Context, Window};
use crate::llm::ResponseFormat;
use crate::llm::schema::{CHECKING, Validator, Verdict};
use crate::types::{CallId, JsonMap, StreamId};

/// A made-up call.
const CALL: &[(&str, &str)] = &[
    ("agent", "Thank you for calling Northwind Energy, this is Ada speaking. How can I help you?"),
    ("customer", "Hi. Um, I moved house in March and the, the electricity bill still goes to my old address."),
    ("agent", "I'm sorry to hear that. Which address should the bill go to?"),
    ("customer", "To twelve Mill Lane. And I was charged twice, which is really annoying!"),
    ("agent", "I see the double charge. I will refund the forty euros for the second bill today."),
    ("customer", "Oh, that's great."),
    ("agent", "And I have changed the address to twelve Mill Lane, so the next electricity bill goes there."),
    ("customer", "Wonderful, thank you so much for your help!"),
    ("agent", "You're welcome. Goodbye."),
];

fn context(call: &[(&str, &str)]) -> Context {
    let mut context = Context::new();
    for (at, (speaker, text)) in call.iter().enumerate() {
        context.upsert(&Arc::new(Turn {
            turn: at as u64,
            stream_id: StreamId::parse("s_1").expect("id"),
            turn_order: at as u64,
            vendor_turn: None,
            rev: 0,
            speaker: Some((*speaker).to_owned()),
            text: (*text).to_owned(),
            start_ms: at as u64 * 4_000,
            end_ms: at as u64 * 4_000 + 3_000,
            language: None,
            confidence: None,
            words: Vec::new(),
        }));
    }
    context
}

fn ask(method: Method, call: &[(&str, &str)]) -> Value {
    let transcript = context(call).snapshot(&mut Window::new(u64::MAX)).transcript();
    let answer = answer(Some(method), &ChatRequest::default(), Some(&transcript)).expect("an answer");
    serde_json::from_str(answer.text()).expect("json")
}

#[test]
fn answers_match_the_built_in_schemas_and_quote_the_turns() {
    let registry = Registry::builtin();
    for name in registry.names() {
        let analysis = registry.get(name).expect("there");
        let Some(method) = analysis.settings.local else { continue };
        let context = context(CALL);
        let snapshot = context.snapshot(&mut Window::new(u64::MAX));
        let turn = (method == Method::Mood).then_some(8);
        let facts =
            Facts { call_id: CallId::parse("c_1").expect("id"), meta: JsonMap::new(), speakers: JsonMap::new(), turn };
        let prompt = analysis.prompt(None).expect("prompt");
        let request = analysis.request(&prompt, &snapshot, &facts).expect("request");
        let answer = answer(Some(method), &request, Some(&snapshot.transcript())).expect("an answer");
        let validator = Validator::compile(analysis.asked_schema(analysis.form(&prompt, false))).expect("compiles");
        let verdict = validator.check(answer.text(), &mut Budget::new(CHECKING)).expect("in its budget");
        let Verdict::Valid(_, value) = verdict else { panic!("invalid under the schema") };
        let reading = Analysis::read(value, &snapshot, &mut Budget::new(READING)).expect("in its budget");
        assert!(reading.evidence.iter().all(|quote| !quote.unverified), "{name} {:?}", reading.evidence);
        assert!(!reading.value.to_string().contains("unverified"), "{name} {}", reading.value);
        let answering = Answering { current: None, checked: None, form: Form::Whole, rev: 1 };
        let concluded = analysis.conclude(reading, &answering);
        let whole = Validator::compile(&analysis.schema).expect("compiles");
        let mut value = concluded.value;
        if analysis.schema["properties"].get("evidence").is_some() {
            assert!(!concluded.evidence.is_empty(), "{name}");
            value["evidence"] = json!(concluded.evidence);
        }
        let verdict = whole.check(&value.to_string(), &mut Budget::new(CHECKING)).expect("in its budget");
        assert!(matches!(verdict, Verdict::Valid(..)), "{name} {verdict:?}");
    }
}

#[test]
fn action_items_and_questions_of_a_call_have_owners_times_and_answers() {
    let items = ask(Method::Actions, CALL);
    assert_eq!(items["items"].as_array().map(Vec::len), Some(1), "{items}");
    let item = &items["items"][0];
    assert_eq!(
        (&item["owner"], &item["due"], &item["state"], &item["evidence"]["turn"]),
        (&json!("agent"), &json!("today"), &json!("open"), &json!(4))
    );
    assert_eq!(item["text"], "I will refund the forty euros for the second bill today.");
    let questions = ask(Method::Questions, CALL);
    assert_eq!(questions["questions"].as_array().map(Vec::len), Some(1), "{questions}");
    let question = &questions["questions"][0];
    assert_eq!(
        (&question["text"], &question["asked_by"]),
        (&json!("Which address should the bill go to?"), &json!("agent"))
    );
    assert_eq!((&question["state"], &question["answer"]), (&json!("answered"), &json!("To twelve Mill Lane.")));
}

#[test]
fn a_summary_says_what_matters_and_who_said_it() {
    let summary = ask(Method::Extract, CALL);
    let points = summary["points"].as_array().expect("points");
    let said = points.iter().map(|point| point["text"].as_str().expect("text")).collect::<Vec<_>>().join(" ");
    let said = format!("{} {said}", summary["headline"].as_str().expect("headline"));
    assert!(said.contains("bill") && said.contains("address"), "{said}");
    assert!(!said.contains("Um") && !said.contains("the, the"), "{said}");
    assert!(points.iter().all(|point| point["speaker"].is_string()));
    assert!(summary["headline"].as_str().expect("headline").split_whitespace().count() <= HEADLINE_WORDS);
}

/// Headline and points of a summary.
fn said(call: &[(&str, &str)]) -> (String, Vec<String>) {
    let summary = ask(Method::Extract, call);
    let points = summary["points"].as_array().expect("points").iter();
    let points = points.map(|point| point["text"].as_str().expect("text").to_owned()).collect();
    (summary["headline"].as_str().expect("headline").to_owned(), points)
}

#[test]
fn numbers_letters_and_names_are_the_speakers_own() {
    let call = [
        ("agent", "May I have the account number?"),
        ("customer", "It's Daniel Okafor, and the account is four four one, seven zero nine, oh oh two."),
        ("agent", "Four four one, seven zero nine, oh oh two, thank you, Mr. Okafor."),
        ("customer", "The postcode is B B six, double seven. It is Tom Tom Street."),
    ];
    let (headline, points) = said(&call);
    let all = format!("{headline} {}", points.join(" "));
    assert!(all.contains("four four one, seven zero nine, oh oh two"), "{all}");
    assert!(all.contains("B B six, double seven"), "{all}");
    for said in points.iter().chain([&headline]) {
        let verbatim = said.trim_end_matches('…');
        assert!(call.iter().any(|(_, text)| text.contains(verbatim)), "{said}");
    }
}

#[test]
fn headline_never_ends_within_a_number() {
    let long = "the number that I want you to write down for me very carefully please is this one here now \
                four four one seven zero nine two two three five";
    let text = shortened(long, HEADLINE_WORDS);
    assert!(text.ends_with('…') && !text.contains("four"), "{text}");
    assert_eq!(shortened("one two three four", 2), "one two…", "nothing but a number");
    let japanese = "解約したいんですけど、手数料はかかりますかと聞きたいのですが、どうしたらいいですか教えてくださいお願いします。";
    let short = shortened(japanese, 10);
    assert_eq!(short.chars().filter(|character| *character != '、').count(), 21, "{short}");
    assert!(japanese.starts_with(short.trim_end_matches('…')));
}

#[test]
fn headline_says_the_outcome_and_no_point_repeats_it() {
    let calls: [&[(&str, &str)]; 3] = [
        CALL,
        &[
            ("agent", "Hello, how can I help you?"),
            ("customer", "I need to return a pair of shoes that I bought, they have the wrong size."),
            ("agent", "When did you buy the shoes?"),
            ("customer", "I bought the shoes in November."),
            ("agent", "Unfortunately that is more than 90 days, so we cannot accept the return of the shoes."),
            ("customer", "Okay. Thanks anyway."),
            ("agent", "Is there anything else I can help you with? Have a great day!"),
        ],
        &[
            ("A", "My flight to Lisbon was cancelled and I need another flight."),
            ("B", "Let me see what there is."),
            ("A", "I have to be in Lisbon before Friday."),
            ("B", "I have booked the flight to Lisbon on Thursday at 9:40 for you."),
            ("A", "Great, thanks. Bye."),
        ],
    ];
    for (call, outcome) in calls.into_iter().zip(["refund", "cannot accept", "9:40"]) {
        let (headline, points) = said(call);
        let all = format!("{headline} {}", points.join(" "));
        assert!(all.contains(outcome), "{outcome}: {all}");
        assert!(!headline.contains("help you") && !headline.contains("Thank"), "{headline}");
        let words = |text: &str| words::content(text).into_iter().collect::<std::collections::HashSet<_>>();
        for point in points {
            let (one, two) = (words(&headline), words(&point));
            assert!(one.intersection(&two).count() * 10 <= two.len() * 6, "{headline:?} again in {point:?}");
        }
    }
}

#[test]
fn points_keep_what_the_call_is_about_and_the_headline_says_something_else() {
    let (headline, points) = said(CALL);
    assert!(points[0].contains("the electricity bill still goes to my old address"), "{points:?}");
    assert!(!headline.contains("old address") && !headline.is_empty(), "{headline}");
    // A single statement becomes the headline, and no text occurs twice.
    let call = [("A", "My flight to Lisbon was cancelled yesterday."), ("B", "Okay."), ("A", "Um, yes.")];
    assert_eq!(said(&call), ("My flight to Lisbon was cancelled yesterday.".to_owned(), Vec::new()));
}

#[test]
fn sentences_beside_each_other_are_one_point_with_one_quote() {
    let mut call = vec![(
        "A",
        "We moved the whole server room to Leipzig. Um. And the cooling of the new building needs a permit.",
    )];
    call.extend([("B", "Yes, that is what it is and so it is then."); 24]);
    call.push(("A", "Let us meet on Monday about the invoice from the lawyer."));
    let (headline, points) = said(&call);
    assert_eq!(headline, "Let us meet on Monday about the invoice from the lawyer.");
    assert_eq!(points, ["We moved the whole server room to Leipzig. The cooling of the new building needs a permit."]);
    let summary = ask(Method::Extract, &call);
    let quotes = summary["evidence"].as_array().expect("evidence").iter();
    let quotes: Vec<&str> = quotes.map(|quote| quote["quote"].as_str().expect("quote")).collect();
    assert!(quotes.contains(&call[0].1), "{quotes:?}");
}

#[test]
fn routine_questions_and_fragments_are_no_points() {
    let call = [
        ("agent", "Thank you for calling, how can I help you?"),
        ("customer", "The parcel with the red bicycle has not arrived. Parcel bicycle."),
        ("agent", "May I have the tracking number of the parcel with the bicycle?"),
        ("customer", "It is B B nine."),
        ("agent", "The parcel with the bicycle will arrive on Friday before noon."),
    ];
    let (headline, points) = said(&call);
    let all = format!("{headline} {}", points.join(" "));
    assert!(!all.contains('?') && !all.contains("Parcel bicycle"), "{all}");
    assert!(all.contains("not arrived") && all.contains("on Friday before noon"), "{all}");
}

#[test]
fn headline_of_a_meeting_names_its_topics_and_the_points_are_about_them() {
    let mut call = vec![("A", "So we are here to talk about the remote control and the price of it.")];
    let turns = [
        ("B", "The remote control should have an LCD screen instead of buttons."),
        ("C", "I think that the price of the LCD screen is too high for us."),
        ("A", "Then the price has to be twenty five euros."),
        ("B", "It it was f f for the the weather that I was so um s so late."),
        ("C", "Yeah."),
    ];
    call.extend(turns.iter().cycle().take(70));
    let (headline, points) = said(&call);
    assert!(headline.starts_with("The meeting is about the remote control, the price"), "{headline}");
    assert!(headline.contains("LCD screen") && headline.split(' ').count() <= HEADLINE_WORDS, "{headline}");
    assert!(points.iter().any(|point| point.contains("twenty five euros")), "{points:?}");
    assert!(!points.iter().any(|point| point.contains("weather")), "{points:?}");
    let summary = ask(Method::Extract, &call);
    for quote in summary["evidence"].as_array().expect("evidence") {
        let turn = usize::try_from(quote["turn"].as_u64().expect("turn")).expect("small");
        assert!(call[turn].1.contains(quote["quote"].as_str().expect("quote")), "{quote}");
    }
    // Two speakers are no meeting.
    let talk: Vec<(&str, &str)> = call.iter().map(|(who, text)| (if *who == "C" { "B" } else { who }, *text)).collect();
    assert!(!said(&talk).0.starts_with("The meeting"));
}

#[test]
fn speech_without_punctuation_has_a_headline_of_few_words() {
    let long = "so the delivery of the new pumps is late again and the supplier says that the pumps will come in march but \
                we need the pumps in february for the plant in hamburg";
    let (headline, points) = said(&[("A", long), ("B", long)]);
    assert!(headline.ends_with('…') && headline.split(' ').count() <= HEADLINE_WORDS, "{headline}");
    assert!(points.is_empty(), "{points:?}");
}

#[test]
fn summary_follows_the_call_to_its_latest_turns() {
    let first = ask(Method::Extract, &CALL[..4]);
    let last = ask(Method::Extract, CALL);
    assert_ne!(first["headline"], last["headline"], "it says what the call is about now");
}

#[test]
fn politeness_of_an_agent_is_not_positive_sentiment() {
    let call = [
        ("A", "Thank you for calling Northwind, how can I help you today?"),
        ("B", "My heating has been broken for a week and nobody comes. This is terrible!"),
        ("A", "I'm so sorry to hear that, that is really frustrating. I apologize for the inconvenience."),
        ("B", "I am really angry."),
        ("A", "I understand, that is awful. Unfortunately there was a problem with the schedule, I'm sorry."),
    ];
    for (labels, server) in [(["A", "B"], "A"), (["agent", "customer"], "agent"), (["Support 2", "x"], "Support 2")] {
        let call: Vec<(&str, &str)> =
            call.iter().map(|(speaker, text)| (labels[usize::from(*speaker == "B")], *text)).collect();
        let judged = ask(Method::Sentiment, &call);
        let of = |label: &str| {
            let all = judged["speakers"].as_array().expect("speakers");
            all.iter().find(|entry| entry["speaker"] == label).expect("there")["label"].clone()
        };
        assert_eq!(of(server), "neutral", "{judged}");
        assert_eq!(of(labels[1]), "negative", "{judged}");
        assert_eq!(ask(Method::Mood, &call[..3])["label"], "neutral");
    }
    let alone = [("agent", "I'm so sorry about that, I apologize for the trouble.")];
    assert_eq!(ask(Method::Mood, &alone)["label"], "neutral");
    // The mood is that of a speaker who does not serve; if neither of them serves, both count.
    assert_eq!(ask(Method::Mood, &[("B", "I'm so sorry, this is awful.")])["label"], "negative");
    let rude = [("agent", "How can I help you?"), ("customer", "Hi."), ("agent", "You are an idiot, shut up!")];
    assert_eq!(ask(Method::Mood, &rude)["label"], "negative", "an insult is no politeness");
}

#[test]
fn sentiment_is_overall_by_speaker_and_over_time() {
    let sentiment = ask(Method::Sentiment, CALL);
    assert_eq!(sentiment["trend"], "improving", "{sentiment}");
    let speakers = sentiment["speakers"].as_array().expect("speakers");
    assert_eq!(
        speakers.iter().map(|entry| entry["speaker"].as_str().expect("label")).collect::<Vec<_>>(),
        ["agent", "customer"]
    );
    let worse = [
        ("A", "Good morning, lovely to hear you!"),
        ("B", "Hi! I love the new heater."),
        ("A", "Great, and what can I do?"),
        ("B", "It is making a strange noise."),
        ("A", "That's a problem that we don't cover."),
        ("B", "What? That's ridiculous, I'm really angry!"),
    ];
    let judged = ask(Method::Sentiment, &worse);
    assert_eq!(judged["trend"], "worsening", "{judged}");
    assert_eq!(ask(Method::Sentiment, &CALL[..1])["trend"], "stable");
    assert_eq!(ask(Method::Mood, CALL)["label"], "neutral");
    assert_eq!(ask(Method::Mood, &CALL[..8])["label"], "positive");
}

#[test]
fn sentiment_of_a_turn_recognises_the_agent_from_earlier_turns() {
    let call = [
        ("A", "Thank you for calling Northwind, how can I help you?"),
        ("B", "Nobody came on Monday."),
        ("A", "That is terrible, and it was our mistake."),
    ];
    let label = |before: usize| {
        let transcript = context(&call).snapshot_turn(2, before, u64::MAX).transcript();
        let answer = answer(Some(Method::Mood), &ChatRequest::default(), Some(&transcript)).expect("an answer");
        serde_json::from_str::<Value>(answer.text()).expect("json")["label"].clone()
    };
    assert_eq!((label(6), label(0)), (json!("neutral"), json!("negative")));
}

#[test]
fn request_that_needs_a_model_is_refused() {
    let transcript = context(CALL).snapshot(&mut Window::default()).transcript();
    let plain = ChatRequest::default();
    assert_eq!(answer(Some(Method::Extract), &plain, None), Err(LocalError::NoTranscript));
    assert_eq!(answer(Some(Method::Extract), &plain, Some(&Transcript::default())), Err(LocalError::NoTranscript));
    let formatted = ChatRequest { response_format: Some(ResponseFormat::JsonObject), ..ChatRequest::default() };
    assert!(matches!(answer(None, &formatted, Some(&transcript)), Err(LocalError::Unsupported(_))));
    let text = answer(None, &plain, Some(&transcript)).expect("a summary");
    let text = text.text().to_owned();
    assert!(text.lines().all(|line| line.starts_with("agent: ") || line.starts_with("customer: ")), "{text}");
}

#[test]
fn any_call_gives_an_answer() {
    for call in
        [&[("A", "Um.")][..], &[("", "。")], &[("A", "你好，我想换一张卡。"), ("B", "好的。")], &[("A", "[unclosed {")]]
    {
        for method in [Method::Extract, Method::Sentiment, Method::Mood, Method::Actions, Method::Questions] {
            assert!(ask(method, call).is_object(), "{method:?} {call:?}");
        }
    }
}
