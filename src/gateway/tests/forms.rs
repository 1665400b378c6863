//! Bodies in a form other than requested or than their media type says; and which of a vendor's events are passed on.

use super::fake::{Fake, chunk, end, plain, plain_with, sse_head, stream};
use super::vendors::{Ending, VENDORS, before_good, bytes, ended, said, streamed, whole};
use super::*;
use crate::llm::Piece;

const MEDIA: [Option<&str>; 6] = [
    Some("text/event-stream; charset=utf-8"),
    Some("application/json"),
    Some("text/plain"),
    Some("application/octet-stream"),
    Some("text/html"),
    None,
];

#[tokio::test]
async fn body_form_is_detected_whatever_the_media_type_is() {
    let good = Fake::start(vec![stream(&["fine"])]).await;
    for vendor in VENDORS {
        let events = said(vendor, "well") + &ended(vendor, Ending::Known, true).expect("an end");
        let document = whole(vendor, "well", Ending::Known);
        for (number, media) in MEDIA.into_iter().enumerate() {
            for (body, before) in
                [(&events, ""), (&document, ""), (&events, "\u{feff}"), (&document, "\u{feff}\r\n \n")]
            {
                // Some vendors answer with another 2xx status than 200.
                let status = if number % 2 == 0 { 200 } else { 201 };
                let row = format!("{vendor}: {status} {media:?}: {before:?}{body}");
                let bad = Fake::start(vec![bytes(status, media, &format!("{before}{body}"), true)]).await;
                let (gateway, _) = before_good(vendor, &bad, &good);
                let read = streamed(&gateway, request(&gateway)).await.unwrap_or_else(|error| panic!("{row}: {error}"));
                assert_eq!((&*read.endpoint, read.text.as_str()), ("bad", "well"), "{row}");
                assert!(read.error.is_none(), "{row}: {:?}", read.error);
                let answer = gateway.complete(request(&gateway)).await.unwrap_or_else(|error| panic!("{row}: {error}"));
                assert_eq!((&*answer.provenance.endpoint, answer.text.as_str()), ("bad", "well"), "{row}");
            }
        }
    }
}

#[tokio::test]
async fn error_in_a_body_of_status_200_is_a_failure() {
    let good = Fake::start(vec![stream(&["fine"])]).await;
    for vendor in VENDORS {
        for error in [
            r#"{"error":{"message":"Slow down, try again in 1m12.5s.","type":"rate_limit_error","code":429}}"#,
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"Slow down, try again in 1m12.5s."}}"#,
            r#"{"error":"Slow down","code":429,"retry_after":72.5}"#,
        ] {
            for media in MEDIA {
                for body in [error.to_owned(), format!("data: {error}\n\n"), format!("event: error\ndata: {error}\n\n")]
                {
                    let row = format!("{vendor}: {media:?}: {body}");
                    let bad = Fake::start(vec![bytes(200, media, &body, true)]).await;
                    let (gateway, tape) = before_good(vendor, &bad, &good);
                    let read =
                        streamed(&gateway, request(&gateway)).await.unwrap_or_else(|error| panic!("{row}: {error}"));
                    assert_eq!((&*read.endpoint, read.text.as_str()), ("good", "fine"), "{row}");
                    let code = tape.outcomes()[0].1;
                    assert!(matches!(code, Some("rate_limited" | "upstream_error")), "{row}: {code:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn stream_under_another_media_type_is_passed_on_at_once() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let steps = vec![
        fake::Step::Write(head.as_bytes().to_vec()),
        chunk("\n"),
        chunk("da"),
        chunk(&said("openai_compatible", "early")[2..]),
        fake::Step::Hang,
    ];
    let (gateway, _) = over(&[&Fake::start(vec![steps]).await], "");
    let mut stream = open(&gateway, request(&gateway)).await.expect("a stream");
    let (mut frames, mut text) = (Vec::new(), String::new());
    while text.is_empty() {
        assert!(stream.next(&mut frames).await.expect("frames"));
        for piece in frames.drain(..).flat_map(|frame| frame.pieces) {
            if let Piece::Text { text: more, .. } = piece {
                text.push_str(&more);
            }
        }
    }
    assert_eq!(text, "early");
}

/// A chunk in OpenAI's own format.
fn own(delta: &str, finish: &str) -> String {
    format!(
        r#"{{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#
    )
}

#[tokio::test]
async fn only_chunks_in_openais_shape_are_passed_on_unchanged() {
    let words = |text: &str| own(&format!(r#"{{"content":"{text}"}}"#), "null");
    let split = words("f").replace("\"choices\"", "\n\"choices\"");
    let lines: Vec<String> = split.lines().map(|line| format!("data: {line}\n")).collect();
    let foreign = [
        "event: agent.tool.progress\ndata: {\"tool\":\"terminal\",\"status\":\"running\"}\n\n".to_owned(),
        "event: agent.tool.progress\ndata: {\"tool\":\"terminal\",\"error\":\"exit 1\"}\n\n".to_owned(),
        "event: ping\ndata: {\"type\":\"ping\"}\n\n".to_owned(),
        "data: {\"type\":\"ping\"}\n\n".to_owned(),
        "data: {\"id\":\"t\",\"object\":\"thread.run\",\"status\":\"queued\"}\n\n".to_owned(),
        "data: {\"type\":\"status\",\"detail\":\"Searching\"}\n\n".to_owned(),
        "data: {\"status\":\"running\",\"detail\":\"Searching\"}\n\n".to_owned(),
        "data: {\"type\":\"log\",\"code\":\"INFO\",\"message\":\"found it\"}\n\n".to_owned(),
        "data: 5\n\n".to_owned(),
        "data: \"ping\"\n\n".to_owned(),
        "data: null\n\n".to_owned(),
        "data: []\n\n".to_owned(),
        "data: [1,2]\n\n".to_owned(),
        "data: {}\n\n".to_owned(),
        "data: ping\n\n".to_owned(),
        "data:\n\n".to_owned(),
        ": comment\n\n".to_owned(),
        "id: 7\nretry: 10\n\n".to_owned(),
        "data: {\"id\":\"c\",\"choices\":null}\n\n".to_owned(),
        "data: {\"id\":\"c\",\"choices\":{}}\n\n".to_owned(),
        "data: {\"id\":\"c\",\"choices\":[]}\n\n".to_owned(),
    ];
    // Chunks that can be decoded but differ from OpenAI's own format.
    let odd = [
        format!("event: chunk\ndata: {}\n\n", words("a").replace("chat.completion.chunk", "chat.completion")),
        format!("data: {}\n\n", words("b").replace("\"id\":\"c\",", "")),
        format!("data: {}\n\n", words("c").replace("\"created\":1,", "")),
        format!("data: {}\n\n", words("d").replace("null", "\"\"")),
        format!("data: {}\n\n", words("e").replace("\"delta\"", "\"message\"")),
    ];
    let mut body = format!("data: {}\n\n", own(r#"{"role":"assistant","content":""}"#, "null"));
    for (position, stranger) in foreign.iter().enumerate() {
        body.push_str(stranger);
        body.push_str(odd.get(position).map_or("", String::as_str));
    }
    body.push_str(&lines.concat());
    body.push_str(&format!("\ndata: {}\n\n", words("g")));
    body.push_str(&format!("data: {}\n\ndata: [DONE]\n\n", own("{}", "\"stop\"")));
    let fake = Fake::start(vec![vec![sse_head(), chunk(&body), end()]]).await;
    let (gateway, _) = over(&[&fake], "");
    let mut stream = open(&gateway, request(&gateway)).await.expect("a stream");
    let (mut frames, mut text, mut raw) = (Vec::new(), String::new(), Vec::new());
    loop {
        let more = stream.next(&mut frames).await.expect("a whole stream");
        for frame in frames.drain(..) {
            let ends = frame.pieces.iter().any(|piece| matches!(piece, Piece::Finish { .. }));
            raw.extend(frame.raw.filter(|_| !ends).map(|raw| String::from_utf8(raw.into()).expect("text")));
            for piece in frame.pieces {
                if let Piece::Text { text: more, .. } = piece {
                    text.push_str(&more);
                }
            }
        }
        if !more {
            break;
        }
    }
    assert_eq!(text, "abcdefg");
    let one_line = split.replace('\n', " ");
    assert_eq!(raw, [own(r#"{"role":"assistant","content":""}"#, "null"), one_line, words("g")]);
}

#[tokio::test]
async fn error_event_ends_a_stream_with_an_error() {
    for event in ["{\"message\":\"no\"}", "{\"error\":{\"message\":\"no\"}}", "\"no\"", "overloaded", "{}"] {
        let body = format!("data: {}\n\nevent: error\ndata: {event}\n\n", own(r#"{"content":"half"}"#, "null"));
        let fake = Fake::start(vec![vec![sse_head(), chunk(&body), chunk("data: [DONE]\n\n"), end()]]).await;
        let (gateway, _) = over(&[&fake], "retries = 0");
        let error = match streamed(&gateway, request(&gateway)).await {
            Ok(read) => read.error.expect("an error"),
            // The error arrived in one read with the first words.
            Err(error) => error,
        };
        assert_eq!(error.code().as_str(), "upstream_error", "{event}");
    }
}

#[tokio::test]
async fn answer_is_asked_for_uncompressed_and_a_compressed_one_is_a_failure_that_says_so() {
    let compressed = plain_with("content-encoding: gzip\r\n", "a");
    let (first, second) = (Fake::start(vec![compressed]).await, Fake::start(vec![plain("b")]).await);
    let (gateway, _tape) = over(&[&first, &second], "");
    assert_eq!(gateway.complete(request(&gateway)).await.expect("answer").text, "b");
    assert_eq!(first.requests(), 1, "a vendor that compresses does so again");
    let heads = first.seen.lock().expect("seen").heads.clone();
    assert!(heads[0].to_ascii_lowercase().contains("accept-encoding: identity\r\n"), "{heads:?}");
    let (gateway, _tape) = over(&[&first], "retries = 0");
    let error = gateway.complete(request(&gateway)).await.expect_err("compressed");
    assert_eq!(error.code().as_str(), "malformed");
    assert!(error.attempts()[0].message.contains("gzip"), "{error}");
    // An identity coding is none.
    let same = Fake::start(vec![plain_with("content-encoding: identity\r\n", "c")]).await;
    let (gateway, _tape) = over(&[&same], "");
    assert_eq!(gateway.complete(request(&gateway)).await.expect("answer").text, "c");
}
