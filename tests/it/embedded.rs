//! The embedded provider on whole calls: a summary in the speakers' own words that repeats nothing and contains the
//! outcome, and a sentiment on which an agent's courtesy has no effect.

use crate::support::daemon::Daemon;
use crate::support::{Json, json, shared};

/// A service call in which every account number has a digit that is said twice, and which ends with promises.
const CALL: [(&str, &str); 9] = [
    ("agent", "Thank you for calling Larkfield, this is Maya. How can I help you?"),
    (
        "customer",
        "The account is four four one, and the parcel with the red bicycle has not arrived. This is terrible!",
    ),
    ("agent", "I'm so sorry to hear that, that is really frustrating. I apologize for the inconvenience."),
    ("customer", "The parcel number is nine nine nine seven, and I am really angry about the bicycle."),
    ("agent", "The parcel nine nine nine seven of account four four one was lost in the depot."),
    ("customer", "I want the money back for the bicycle, the account is four four one."),
    ("agent", "I understand, that is awful. Unfortunately there was a problem in our depot, I'm sorry."),
    ("agent", "I will refund two hundred euros to account four four one on Thursday."),
    ("customer", "Okay. Goodbye."),
];

/// Posts [`CALL`] as a whole and returns the insights of one analysis, in order.
async fn insights(daemon: &Daemon, analysis: &str) -> Vec<Json> {
    let turns: Vec<Json> = CALL.iter().map(|(speaker, text)| json!({"speaker": speaker, "text": text})).collect();
    let body = json!({"call_id": analysis, "turns": turns, "analyses": [analysis]});
    let reply = daemon.post("/v1/transcripts", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let events = daemon.events(analysis).await.into_iter().filter(|event| event["type"] == "insight.updated");
    let insights: Vec<Json> = events.map(|mut event| event["insight"].take()).collect();
    assert!(insights.iter().all(|insight| insight["provenance"]["endpoint"] == "local"), "{insights:?}");
    insights
}

/// The newest value of an analysis.
async fn value(daemon: &Daemon, analysis: &str) -> Json {
    insights(daemon, analysis).await.pop().expect("an insight")["value"].take()
}

/// The headline, and the texts of the points.
fn texts(summary: &Json) -> (String, Vec<String>) {
    let points = summary["points"].as_array().expect("points").iter();
    let points = points.map(|point| point["text"].as_str().expect("text").to_owned()).collect();
    (summary["headline"].as_str().expect("headline").to_owned(), points)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn summary_of_repeated_digits_is_verbatim() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let (headline, points) = texts(&value(&daemon, "summary").await);
    let all = format!("{headline} {}", points.join(" "));
    let doubled = all.contains("four four one") || all.contains("nine nine nine seven");
    assert!(doubled, "the numbers are what this call is about: {all}");
    for said in points.iter().chain([&headline]) {
        let verbatim = said.trim_end_matches('…').trim_end_matches('.');
        assert!(CALL.iter().any(|(_, text)| text.contains(verbatim)), "nobody said {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headline_is_not_among_the_points_and_the_outcome_is_said() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let (headline, points) = texts(&value(&daemon, "summary").await);
    let begin = headline.trim_end_matches('…');
    assert!(!points.is_empty() && !begin.is_empty(), "{headline:?} {points:?}");
    assert!(points.iter().all(|point| !point.contains(begin)), "{headline:?} again in {points:?}");
    assert!(
        headline.contains("refund") || points.iter().any(|point| point.contains("refund")),
        "{headline:?} {points:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apologies_of_the_agent_are_not_negative_sentiment() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let sentiment = value(&daemon, "sentiment").await;
    let of = |label: &str| {
        let speakers = sentiment["speakers"].as_array().expect("speakers");
        speakers.iter().find(|entry| entry["speaker"] == label).expect("the speaker")["label"].clone()
    };
    assert_eq!((of("agent"), of("customer")), (json!("neutral"), json!("negative")), "{sentiment}");
    for insight in insights(&daemon, "sentiment_turn").await {
        let turn = insight["turn"].as_u64().expect("a number") as usize;
        let (speaker, text) = CALL[turn];
        if speaker == "agent" {
            assert_eq!(insight["value"]["label"], "neutral", "{text}");
        }
    }
}
