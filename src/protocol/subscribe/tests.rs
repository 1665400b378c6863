//! The JSON of a subscription's frames, which can be read back.

use std::borrow::Cow;

use super::*;
use crate::protocol::text;
use crate::types::{JsonMap, StreamId, Turn, Word};

fn call(name: &str) -> CallId {
    CallId::parse(name).expect("id")
}

fn turn(words: Vec<Word>) -> Turn {
    Turn {
        turn: 0,
        stream_id: StreamId::parse("s").expect("id"),
        turn_order: 0,
        vendor_turn: None,
        rev: 0,
        speaker: None,
        text: "Hi.".into(),
        start_ms: 1,
        end_ms: 2,
        language: None,
        confidence: None,
        words,
    }
}

#[test]
fn replies_begin_with_the_id_and_read_back() {
    let standing = SubscribedCall { epoch: None, seq: 0, recovered: false };
    let mut subscribed = Subscribed {
        id: Some("1".into()),
        tag: tag::Subscribed,
        subscription: "sub_1".into(),
        calls: vec![(call("z"), standing.clone()), (call("a"), standing)],
        recovered: None,
        cursor: None,
    };
    assert_eq!(
        text(&subscribed),
        r#"{"id":"1","type":"subscribed","subscription":"sub_1","calls":{"z":{"epoch":null,"seq":0,"recovered":false},"a":{"epoch":null,"seq":0,"recovered":false}}}"#
    );
    subscribed.recovered = Some(true);
    subscribed.cursor = Some("1.ff".into());
    let written = text(&subscribed);
    assert!(written.ends_with(r#"},"recovered":true,"cursor":"1.ff"}"#), "{written}");
    assert_eq!(ServerFrame::read(&written).expect("a frame"), ServerFrame::Subscribed(subscribed));
    assert_eq!(text(&Pong { id: Some(7.into()), tag: tag::Pong }), r#"{"id":7,"type":"pong"}"#);
    let unsubscribed = Unsubscribed { id: None, tag: tag::Unsubscribed, subscription: "sub_1".into() };
    assert_eq!(text(&unsubscribed), r#"{"type":"unsubscribed","subscription":"sub_1"}"#);
}

#[test]
fn snapshot_has_words_first_in_a_turn_and_reads_back() {
    let meta: JsonMap = serde_json::from_str(r#"{"team":"billing"}"#).expect("json");
    let word = Word { text: "Hi.".into(), start_ms: 1, end_ms: 2, speaker: None, confidence: None };
    let turn = turn(vec![word]);
    let shown = |with_words| ShownTurn { turn: Cow::Borrowed(&turn), with_words };
    let plain = r#"{"turn":0,"stream_id":"s","turn_order":0,"rev":0,"text":"Hi.","start_ms":1,"end_ms":2}"#;
    assert_eq!(text(&shown(false)), plain);
    let words = r#"{"words":[{"text":"Hi.","start_ms":1,"end_ms":2}],"#;
    assert_eq!(text(&shown(true)), format!("{words}{}", &plain[1..]));
    let state = State {
        status: "open".into(),
        meta: Cow::Borrowed(&meta),
        turns_from: Some(0),
        turns: Some(vec![shown(true)]),
        insights: JsonMap::new(),
        insights_omitted: Vec::new(),
        alerts: Some(Cow::Borrowed(&[])),
    };
    let snapshot = Snapshot {
        tag: tag::Snapshot,
        subscription: "sub_1".into(),
        cursor: None,
        call_id: call("c"),
        epoch: "e".into(),
        seq: 4,
        state,
    };
    let written = text(&snapshot);
    let head = r#"{"type":"snapshot","subscription":"sub_1","call_id":"c","epoch":"e","seq":4,"state":{"status":"open","meta":{"team":"billing"},"turns_from":0,"turns":["#;
    assert!(written.starts_with(head) && written.ends_with(r#"],"insights":{},"alerts":[]}}"#), "{written}");
    let ServerFrame::Snapshot(read) = ServerFrame::read(&written).expect("a frame") else { panic!("{written}") };
    assert_eq!(*read, snapshot);
}

#[test]
fn pushed_event_has_its_subscription_and_cursor() {
    let text =
        r#"{"type":"call.failed","subscription":"sub_1","cursor":"1.2","call_id":"c","seq":3,"at":"t","reason":"r"}"#;
    let ServerFrame::Event(pushed) = ServerFrame::read(text).expect("a frame") else { panic!("no event") };
    assert_eq!((pushed.subscription.as_deref(), pushed.cursor.as_deref()), (Some("sub_1"), Some("1.2")));
    assert_eq!((pushed.event.stamp.seq, pushed.event.event.kind().as_str()), (3, "call.failed"));
}

#[test]
fn subscribe_has_no_member_that_is_not_set_and_reads_back() {
    let all = Subscribe::new(Calls::All(tag::All));
    assert_eq!(text(&all), r#"{"type":"subscribe","calls":"*"}"#);
    let position = Position { epoch: "e".into(), seq: 2 };
    let named = Subscribe {
        id: Some("1".into()),
        wait: true,
        include: Some(vec![Include::Turns, Include::Deltas]),
        resume: Some(Resume::Positions([(call("c"), position)].into_iter().collect())),
        delivery: [("summary".to_owned(), Delivery::Latest)].into_iter().collect(),
        ..Subscribe::new(Calls::These(vec![call("c")]))
    };
    let written = text(&named);
    assert_eq!(
        written,
        r#"{"id":"1","type":"subscribe","calls":["c"],"wait":true,"include":["turns","deltas"],"resume":{"c":{"epoch":"e","seq":2}},"delivery":{"summary":"latest"}}"#
    );
    assert_eq!(serde_json::from_str::<Subscribe>(&written).expect("a subscribe"), named);
    let resumed: Subscribe =
        serde_json::from_str(r#"{"type":"subscribe","calls":"*","resume":{"cursor":"1.5"}}"#).expect("a subscribe");
    assert_eq!(resumed.resume, Some(Resume::Cursor { cursor: "1.5".into() }));
}
