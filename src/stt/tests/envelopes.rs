//! Frames in the envelopes that SDKs, webhooks and brokers put around them.

use super::*;

/// The envelopes that SDKs, webhooks and brokers put around a frame.
fn envelopes(frame: &str) -> Vec<String> {
    let text = serde_json::Value::String(frame.to_owned());
    vec![
        format!(r#"{{"data":{frame}}}"#),
        format!(r#"{{"message":{frame}}}"#),
        format!(r#"{{"payload":{frame},"timestamp":1790221526,"id":"e-1"}}"#),
        format!(r#"{{"type":"message","data":{text}}}"#),
        format!(r#"{{"event":"stt.message","payload":{{"session":{{"id":"s-1"}},"result":{frame}}}}}"#),
        format!(r#"{{"detail":{{"body":{text}}}}}"#),
        format!(r#"{{"TranscriptResultStream":{frame}}}"#),
        format!("[{frame}]"),
        format!("Path:message\r\nX-RequestId:1\r\n\r\n{frame}"),
        format!("event: transcript\nid: 1\ndata: {frame}\n\n"),
        format!("42[\"transcript\",{frame}]"),
    ]
}

#[test]
fn frames_in_envelopes_say_the_same_as_bare_ones() {
    for (dialect, name, frames) in ordinary().filter(|(dialect, ..)| dialect.splits()) {
        // The frames that the dialect knows, in order. Errors in envelopes are not errors of the stream.
        let mut bare = dialect.open();
        let known: Vec<String> = frames
            .into_iter()
            .filter(|frame| {
                let mut events = Vec::new();
                let result = bare.decode(frame, &mut events);
                let end = events.iter().any(|event| matches!(event, SttEvent::End { .. }));
                let own = wire::own(frame).is_ok_and(|event| event.is_some());
                !own && (end || Fit::of(&result, &events, bare.holding()).is_known())
            })
            .collect();
        assert!(!known.is_empty());
        let expected = said(&mut *dialect.open(), &known);
        for kind in 0..envelopes("{}").len() {
            let wrapped: Vec<String> = known.iter().map(|frame| envelopes(frame).swap_remove(kind)).collect();
            let context = format!("{}/{name} as {}", dialect.name(), envelopes("…")[kind]);
            assert_eq!(said(&mut *dialect.open(), &wrapped), expected, "{context}");
        }
    }
}

#[test]
fn frames_of_ours_in_envelopes_are_the_vendors_and_end_nothing() {
    for dialect in DIALECTS {
        for own in [r#"{"type":"end","scope":"call"}"#, r#"{"type":"meta","meta":{"a":1}}"#] {
            for frame in envelopes(own).into_iter().filter(|frame| frame.starts_with('{')) {
                let mut out = Vec::new();
                let _ = dialect.open().decode(&frame, &mut out);
                let ours = |event: &SttEvent| matches!(event, SttEvent::End { .. } | SttEvent::Meta(_));
                assert!(!out.iter().any(ours), "{}: {frame}", dialect.name());
            }
        }
    }
}
