use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::base::testing::kept;
use crate::llm::tests::formats::format_of;
use crate::llm::{PROVIDERS, sse};

const KNOWN: Reason = Reason::Known(Finish::Stop);

fn unknown() -> Reason {
    Reason::Unknown("odd".to_owned())
}

#[test]
fn each_row_of_the_table_applies() {
    let cut = Err(Incomplete::Cut);
    let empty = Err(Incomplete::Empty);
    let odd = || Err(Incomplete::Unknown("odd".to_owned()));
    // Whether there is text; the finish reason; then the outcomes: marked and closed, marked and cut, closed, cut.
    let rows = [
        (Said::Words, KNOWN, [Ok(Finish::Stop), Ok(Finish::Stop), Ok(Finish::Stop), Ok(Finish::Stop)]),
        (Said::Words, unknown(), [Ok(Finish::Stop), Ok(Finish::Stop), odd(), odd()]),
        (Said::Words, Reason::Absent, [Ok(Finish::Stop), Ok(Finish::Stop), cut.clone(), cut.clone()]),
        (Said::Calls, KNOWN, [Ok(Finish::Stop), Ok(Finish::Stop), Ok(Finish::Stop), Ok(Finish::Stop)]),
        (Said::Calls, unknown(), [Ok(Finish::ToolCalls), Ok(Finish::ToolCalls), odd(), odd()]),
        (Said::Calls, Reason::Absent, [Ok(Finish::ToolCalls), Ok(Finish::ToolCalls), cut.clone(), cut.clone()]),
        (Said::Nothing, KNOWN, [Ok(Finish::Stop), Ok(Finish::Stop), Ok(Finish::Stop), cut.clone()]),
        (Said::Nothing, unknown(), [odd(), odd(), odd(), odd()]),
        (Said::Nothing, Reason::Absent, [empty.clone(), empty.clone(), empty.clone(), empty.clone()]),
        (Said::Nothing, Reason::Known(Finish::ToolCalls), [empty.clone(), empty.clone(), empty.clone(), empty]),
        (
            Said::Nothing,
            Reason::Known(Finish::Length),
            [Ok(Finish::Length), Ok(Finish::Length), Ok(Finish::Length), cut.clone()],
        ),
        (
            Said::Nothing,
            Reason::Known(Finish::ContentFilter),
            [Ok(Finish::ContentFilter), Ok(Finish::ContentFilter), Ok(Finish::ContentFilter), cut],
        ),
        (
            Said::Words,
            Reason::Known(Finish::Length),
            [Ok(Finish::Length), Ok(Finish::Length), Ok(Finish::Length), Ok(Finish::Length)],
        ),
    ];
    for (said, reason, outcomes) in rows {
        for ((marked, closed), outcome) in
            [(true, true), (true, false), (false, true), (false, false)].into_iter().zip(outcomes)
        {
            assert_eq!(complete(said, &reason, marked, closed), outcome, "{said:?} {reason:?} {marked} {closed}");
        }
    }
}

#[test]
fn finish_reason_is_known_a_failure_unknown_or_absent() {
    for word in
        ["stop", "STOP", "Stop", "end_turn", "COMPLETE", "eos", "eos_token", "FINISH_REASON_STOP", "stop-sequence"]
    {
        assert_eq!(reason(Some(word), None), Ok(Reason::Known(Finish::Stop)), "{word}");
    }
    for word in ["length", "MAX_TOKENS", "max_tokens", "model_length"] {
        assert_eq!(reason(Some(word), None), Ok(Reason::Known(Finish::Length)), "{word}");
    }
    for word in ["tool_calls", "TOOL_CALL", "tool_use", "function_call"] {
        assert_eq!(reason(Some(word), None), Ok(Reason::Known(Finish::ToolCalls)), "{word}");
    }
    for word in ["content_filter", "SAFETY", "refusal", "IMAGE_SAFETY", "MODEL_ARMOR", "sensitive"] {
        assert_eq!(reason(Some(word), None), Ok(Reason::Known(Finish::ContentFilter)), "{word}");
    }
    for word in ["", " ", "null", "FINISH_REASON_UNSPECIFIED"] {
        assert_eq!(reason(Some(word), None), Ok(Reason::Absent), "{word}");
    }
    assert_eq!(reason(None, None), Ok(Reason::Absent));
    for (word, status) in [
        ("error", 500),
        ("ERROR", 500),
        ("TIMEOUT", 504),
        ("ERROR_TOXIC", 500),
        ("ERROR_LIMIT", 500),
        ("USER_CANCEL", 500),
        ("abort", 500),
        ("network_error", 500),
        ("insufficient_system_resource", 503),
        ("MALFORMED_FUNCTION_CALL", 500),
        ("MALFORMED_RESPONSE", 500),
        ("UNEXPECTED_TOOL_CALL", 500),
        ("TOO_MANY_TOOL_CALLS", 500),
        ("MISSING_THOUGHT_SIGNATURE", 400),
        ("OTHER", 500),
        ("NO_IMAGE", 500),
        ("malformed_model_output", 500),
    ] {
        let Err(StreamError::Vendor(error)) = reason(Some(word), None) else { panic!("{word} is no failure") };
        assert_eq!((error.status, error.code.as_deref()), (status, Some(word)));
    }
    for word in ["odd", "in_progress", "whatever it is"] {
        assert_eq!(reason(Some(word), None), Ok(Reason::Unknown(word.to_owned())));
    }
    let long = "ä".repeat(500);
    assert!(matches!(reason(Some(&long), None), Ok(Reason::Unknown(word)) if word.len() <= MAX_WORD_BYTES));
}

fn text(choice: u32) -> Piece {
    Piece::Text { choice, text: "x".to_owned() }
}

fn stop(choice: u32) -> Piece {
    Piece::Finish { choice, reason: Finish::Stop }
}

fn ended(pieces: &[Piece], unread: u32, asked: u32, closed: bool) -> Result<Vec<(u32, Finish)>, Incomplete> {
    let mut progress = Progress::default();
    pieces.iter().for_each(|piece| progress.piece(piece));
    (0..unread).for_each(|_| progress.unread());
    progress.end(asked, closed)
}

#[test]
fn several_answers_have_to_end_each() {
    let both = [text(0), text(1), stop(0), stop(1)];
    assert_eq!(ended(&both, 0, 2, false), Ok(vec![(0, Finish::Stop), (1, Finish::Stop)]));
    let one = [text(0), text(1), stop(0)];
    assert_eq!(ended(&one, 0, 2, true), Err(Incomplete::Cut));
    // The end mark does not replace a finish reason if another answer has one.
    assert_eq!(ended(&[&one[..], &[Piece::Done]].concat(), 0, 2, true), Err(Incomplete::Cut));
    assert!(ended(&[text(0), text(1), Piece::Done], 0, 2, true).is_ok());
    // Fewer answers than requested are accepted only if the vendor marks the end.
    assert_eq!(ended(&[text(0), stop(0)], 0, 2, true), Err(Incomplete::Cut));
    assert!(ended(&[text(0), stop(0), Piece::Done], 0, 2, true).is_ok());
}

#[test]
fn text_after_a_finish_reason_makes_it_invalid() {
    assert_eq!(ended(&[stop(0), text(0)], 0, 1, true), Err(Incomplete::Cut));
    assert!(ended(&[stop(0), text(0), stop(0)], 0, 1, false).is_ok());
    assert!(ended(&[text(0), stop(0), Piece::Text { choice: 0, text: String::new() }], 0, 1, false).is_ok());
}

#[test]
fn unreadable_events_are_ignored_only_in_a_complete_answer() {
    assert!(ended(&[text(0), stop(0)], 1, 1, true).is_ok());
    for pieces in [vec![], vec![Piece::Done], vec![stop(0), Piece::Done], vec![text(0), Piece::Done], vec![text(0)]] {
        assert_eq!(ended(&pieces, 2, 1, true), Err(Incomplete::Unread(2)), "{pieces:?}");
    }
}

#[test]
fn answer_with_only_thinking_is_incomplete() {
    let thought = Piece::Reasoning { choice: 0, text: "hm".to_owned() };
    assert_eq!(ended(&[thought.clone(), Piece::Done], 0, 1, true), Err(Incomplete::Empty));
    assert_eq!(ended(&[thought.clone(), stop(0)], 0, 1, false), Err(Incomplete::Cut));
    assert!(ended(&[thought, stop(0)], 0, 1, true).is_ok());
}

#[test]
fn whole_body_of_each_provider_needs_a_known_finish_reason() {
    for provider in PROVIDERS {
        let format = format_of(*provider);
        let body = |said, finish| (format.answer)(said, &finish).to_string();
        for said in [true, false] {
            for (finish, good) in
                [(json!(format.stop), true), (Value::Null, false), (json!(""), false), (json!("odd"), false)]
            {
                let body = body(said, finish);
                match provider.answer(body.as_bytes()) {
                    Ok(answer) => {
                        assert!(good, "{}: {body}", provider.name());
                        assert_eq!(answer.choices[0].finish, Some(Finish::Stop), "{body}");
                    }
                    Err(StreamError::Incomplete { why, usage }) => {
                        assert!(!good, "{}: {why}: {body}", provider.name());
                        assert_eq!(usage.input, Some(3), "{}", provider.name());
                    }
                    Err(error) => panic!("{}: {error:?}: {body}", provider.name()),
                }
            }
        }
        let failed = body(true, json!("error"));
        assert!(matches!(provider.answer(failed.as_bytes()), Err(StreamError::Vendor(_))), "{}", provider.name());
        let answer = provider.answer(body(true, json!(format.length)).as_bytes()).expect("a truncated answer");
        assert_eq!(answer.choices[0].finish, Some(Finish::Length), "{}", provider.name());
    }
}

#[test]
fn gemini_stop_without_a_part_is_incomplete() {
    let google = crate::llm::provider("google").expect("google");
    let empty = r#"{"candidates":[{"content":{"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":3,"totalTokenCount":3}}"#;
    assert!(matches!(google.answer(empty.as_bytes()), Err(StreamError::Incomplete { why: Incomplete::Empty, .. })));
    // The same chunk early in a stream: the answer follows it.
    let text = r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"index":0}]}"#;
    let last = r#"{"candidates":[{"content":{"role":"model"},"finishReason":"STOP","index":0}]}"#;
    for (events, good) in [(vec![empty], false), (vec![empty, text], false), (vec![empty, text, last], true)] {
        let (mut decoder, mut progress, mut out) = (google.stream(), Progress::default(), Vec::new());
        for event in &events {
            decoder.decode(sse::Event { name: "", data: event.as_bytes() }, &mut out).expect("a chunk");
        }
        out.iter().for_each(|piece| progress.piece(piece));
        assert_eq!(progress.end(1, true).is_ok(), good, "{events:?}");
    }
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn complete_answer_has_words_or_a_known_end(
        said in prop_oneof![Just(Said::Nothing), Just(Said::Words), Just(Said::Calls)],
        word in prop_oneof![Just(None), "[a-z_]{0,12}".prop_map(Some)],
        marked: bool,
        closed: bool,
    ) {
        let Ok(reason) = reason(word.as_deref(), None) else { return Ok(()) };
        let outcome = complete(said, &reason, marked, closed);
        let known = matches!(reason, Reason::Known(_));
        prop_assert!(outcome.is_err() || known || (marked && said != Said::Nothing));
        if let (Ok(finish), Reason::Known(told)) = (&outcome, &reason) {
            prop_assert_eq!(finish, told);
        }
        // More evidence never makes a complete answer an incomplete one.
        if complete(said, &reason, false, false).is_ok() {
            prop_assert!(complete(said, &reason, marked, closed).is_ok());
        }
    }
}
