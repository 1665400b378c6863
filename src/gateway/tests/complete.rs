//! Which answers count as complete: every row of the table of `llm::complete`, in each wire format, for clients that
//! stream and clients that do not, before and after the commit point.

use super::fake::{Fake, data, sse_head, stream};
use super::vendors::{Ending, VENDORS, before_good, bytes, ended, said, streamed, whole};
use super::*;
use crate::llm::Finish;

/// Columns: there is text; how the answer ends; there is an end mark; the body is closed and not cut; the answer is
/// complete.
const TABLE: [(bool, Ending, bool, bool, bool); 32] = [
    (true, Ending::Known, true, true, true),
    (true, Ending::Known, true, false, true),
    (true, Ending::Known, false, true, true),
    (true, Ending::Known, false, false, true),
    (true, Ending::Unknown, true, true, true),
    (true, Ending::Unknown, true, false, true),
    (true, Ending::Unknown, false, true, false),
    (true, Ending::Unknown, false, false, false),
    (true, Ending::Empty, true, true, true),
    (true, Ending::Empty, true, false, true),
    (true, Ending::Empty, false, true, false),
    (true, Ending::Empty, false, false, false),
    (true, Ending::Absent, true, true, true),
    (true, Ending::Absent, true, false, true),
    (true, Ending::Absent, false, true, false),
    (true, Ending::Absent, false, false, false),
    (false, Ending::Known, true, true, true),
    (false, Ending::Known, true, false, true),
    (false, Ending::Known, false, true, true),
    (false, Ending::Known, false, false, false),
    (false, Ending::Unknown, true, true, false),
    (false, Ending::Unknown, true, false, false),
    (false, Ending::Unknown, false, true, false),
    (false, Ending::Unknown, false, false, false),
    (false, Ending::Empty, true, true, false),
    (false, Ending::Empty, true, false, false),
    (false, Ending::Empty, false, true, false),
    (false, Ending::Empty, false, false, false),
    (false, Ending::Absent, true, true, false),
    (false, Ending::Absent, true, false, false),
    (false, Ending::Absent, false, true, false),
    (false, Ending::Absent, false, false, false),
];

#[tokio::test]
async fn stream_ending_decides_between_answer_failover_and_error() {
    let good = Fake::start(vec![stream(&["fine"])]).await;
    for vendor in VENDORS {
        for (words, ending, marked, closed, complete) in TABLE {
            let Some(end) = ended(vendor, ending, marked) else { continue };
            let row = format!("{vendor}: said {words}, {ending:?}, marked {marked}, closed {closed}");
            let text = if words { "half" } else { "" };
            let body = said(vendor, text) + &end;
            let bad = Fake::start(vec![bytes(200, Some("text/event-stream"), &body, closed)]).await;
            let (gateway, tape) = before_good(vendor, &bad, &good);
            let read = streamed(&gateway, request(&gateway)).await.unwrap_or_else(|error| panic!("{row}: {error}"));
            if complete {
                assert_eq!((&*read.endpoint, read.text.as_str()), ("bad", text), "{row}");
                assert!(read.error.is_none(), "{row}: {:?}", read.error);
                assert_eq!(read.finishes.last(), Some(&Finish::Stop), "{row}");
                assert_eq!(tape.outcomes(), [("ok", None)], "{row}");
            } else if words {
                assert_eq!((&*read.endpoint, read.text.as_str()), ("bad", "half"), "{row}");
                assert_eq!(read.error.map(|error| error.code().as_str()), Some("interrupted"), "{row}");
                assert_eq!(tape.outcomes(), [("partial", Some("interrupted"))], "{row}");
            } else {
                assert_eq!((&*read.endpoint, read.text.as_str()), ("good", "fine"), "{row}");
                assert_eq!(tape.outcomes()[0], ("failed", Some("interrupted")), "{row}");
            }
            // For a client that does not stream, nothing is shown before the answer is complete.
            let (gateway, _) = before_good(vendor, &bad, &good);
            let answer = gateway.complete(request(&gateway)).await.unwrap_or_else(|error| panic!("{row}: {error}"));
            let expected = if complete { ("bad", text) } else { ("good", "fine") };
            assert_eq!((&*answer.provenance.endpoint, answer.text.as_str()), expected, "{row}, whole");
        }
    }
}

#[tokio::test]
async fn whole_body_is_complete_only_with_a_known_finish_reason() {
    let good = Fake::start(vec![super::fake::plain("fine")]).await;
    for vendor in VENDORS {
        for text in ["well", ""] {
            for ending in Ending::ALL {
                let body = whole(vendor, text, ending);
                let bad = Fake::start(vec![bytes(200, Some("application/json"), &body, true)]).await;
                let (gateway, tape) = before_good(vendor, &bad, &good);
                let answer = gateway.complete(request(&gateway)).await.expect("an answer");
                let expected = if ending == Ending::Known { ("bad", text) } else { ("good", "fine") };
                assert_eq!((&*answer.provenance.endpoint, answer.text.as_str()), expected, "{vendor}: {body}");
                // The same for a stream.
                let read = streamed(&gateway, request(&gateway)).await.expect("a stream");
                assert_eq!((&*read.endpoint, read.text.as_str()), expected, "{vendor}: {body}");
                if ending != Ending::Known {
                    assert_eq!(tape.outcomes()[0], ("failed", Some("interrupted")), "{vendor}: {body}");
                }
            }
        }
    }
}

#[tokio::test]
async fn finish_reason_that_reports_a_failure_is_a_failure() {
    let good = Fake::start(vec![stream(&["fine"])]).await;
    for (vendor, words) in [
        ("openai_compatible", vec!["error", "abort", "network_error", "insufficient_system_resource"]),
        ("openrouter", vec!["error"]),
        ("anthropic", vec!["error"]),
        ("google", vec!["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER", "MALFORMED_RESPONSE", "NO_IMAGE"]),
        ("cohere", vec!["ERROR", "TIMEOUT", "ERROR_TOXIC", "ERROR_LIMIT"]),
    ] {
        for word in words {
            for text in ["half", ""] {
                let end = ended(vendor, Ending::Unknown, true).expect("an end").replace("odd", word);
                let body = said(vendor, text) + &end;
                let bad = Fake::start(vec![bytes(200, Some("text/event-stream"), &body, true)]).await;
                let (gateway, _) = before_good(vendor, &bad, &good);
                let read = streamed(&gateway, request(&gateway)).await.expect("a stream");
                // What arrived in one read with the failure was not shown to the client: the next candidate may answer.
                if text.is_empty() || &*read.endpoint == "good" {
                    assert_eq!((&*read.endpoint, read.text.as_str()), ("good", "fine"), "{vendor} {word}");
                } else {
                    assert_eq!(
                        read.error.map(|error| error.code().as_str()),
                        Some("upstream_error"),
                        "{vendor} {word}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn stream_without_a_readable_event_is_a_failure() {
    for events in [
        vec!["[DONE]"],
        vec![r#"{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":null}"#, "[DONE]"],
        vec![
            r#"{"id":"c","choices":"none"}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":0}}"#,
            "[DONE]",
        ],
        vec!["{broken", "{again", "[DONE]"],
        vec!["{broken", r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#, "[DONE]"],
        vec![r#"{"choices":null,"error_type":"BadRequestError","error_message":"too long"}"#, "[DONE]"],
        vec![r#"{"object":"error","message":"no","code":400}"#, "[DONE]"],
        vec![r#"{"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}"#, "[DONE]"],
        vec![r#"{"code":50603,"message":"System is too busy now","data":null}"#, "[DONE]"],
        vec![r#"{"detail":"Not ready"}"#, "[DONE]"],
        vec![],
    ] {
        let mut steps = vec![sse_head()];
        steps.extend(events.iter().map(|event| data(event)));
        steps.push(super::fake::end());
        let bad = Fake::start(vec![steps]).await;
        let good = Fake::start(vec![stream(&["fine"])]).await;
        let (gateway, _) = before_good("openai_compatible", &bad, &good);
        let read = streamed(&gateway, request(&gateway)).await.expect("a stream");
        assert_eq!((&*read.endpoint, read.text.as_str()), ("good", "fine"), "{events:?}");
        let (gateway, _) = over(&[&bad], "retries = 0");
        assert!(streamed(&gateway, request(&gateway)).await.is_err(), "{events:?}");
    }
}

#[tokio::test]
async fn stream_with_several_answers_is_complete_when_all_have_ended() {
    let part = |choice, finish: &str| {
        data(&format!(
            r#"{{"id":"x","choices":[{{"index":{choice},"delta":{{"content":"a"}},"finish_reason":{finish}}}]}}"#
        ))
    };
    for (second, complete) in [("\"stop\"", true), ("null", false), ("\"\"", false)] {
        let steps = vec![sse_head(), part(0, "\"stop\""), part(1, second), data("[DONE]"), super::fake::end()];
        let (gateway, _) = over(&[&Fake::start(vec![steps]).await], "retries = 0");
        let mut request = request(&gateway);
        request.chat.n = Some(2);
        let whole = streamed(&gateway, request).await.is_ok_and(|read| read.error.is_none());
        assert_eq!(whole, complete, "{second}");
    }
}
