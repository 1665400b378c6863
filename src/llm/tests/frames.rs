//! Vendors' own fixtures with one field changed: removed, `null`, another number, text, a fraction. A field that the
//! decoder can do without never costs anything; a field that it needs costs only its own part.

use proptest::prelude::*;

use super::*;
use crate::base::testing::kept;

/// The content of an answer, without its counts and without ids, which may be generated.
#[derive(Debug, Clone, PartialEq, Default)]
struct Said {
    text: String,
    reasoning: String,
    calls: Vec<(String, String)>,
    finish: Option<Finish>,
}

fn said(answer: &ChatResponse) -> Said {
    let mut all = Said::default();
    for choice in &answer.choices {
        all.text.push_str(choice.text.as_deref().unwrap_or_default());
        all.reasoning.push_str(choice.reasoning.as_deref().unwrap_or_default());
        all.calls.extend(choice.tool_calls.iter().map(|call| (call.name.clone(), call.arguments.clone())));
        all.finish = choice.finish.or(all.finish);
    }
    all
}

/// Fields that have content, or contain a field that has.
const NEEDED: &[&str] = &[
    "arguments",
    "args",
    "blockReason",
    "candidates",
    "choices",
    "content",
    "content_block",
    "delta",
    "finishReason",
    "finish_reason",
    "function",
    "functionCall",
    "input",
    "message",
    "name",
    "partial_json",
    "parts",
    "promptFeedback",
    "reasoning",
    "reasoning_content",
    "refusal",
    "stop_reason",
    "text",
    "thinking",
    "thought",
    "tool_calls",
    "tool_plan",
    "type",
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    Remove,
    Null,
    Renumber,
    Text,
    Fraction,
}

const CHANGES: [Change; 5] = [Change::Remove, Change::Null, Change::Renumber, Change::Text, Change::Fraction];

/// All places in a document as JSON pointers, except the document itself.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    let mut place = |key: &str, value: &Value| {
        let path = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        out.push(path.clone());
        places(value, &path, out);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| place(key, value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(at, value)| place(&at.to_string(), value)),
        _ => {}
    }
}

/// Makes a change. Returns false if it would change nothing.
fn apply(document: &mut Value, place: &str, change: Change) -> bool {
    let Some((parent, key)) = place.rsplit_once('/') else { return false };
    let Some(parent) = document.pointer_mut(parent) else { return false };
    if change == Change::Remove {
        return match parent {
            Value::Object(fields) => fields.shift_remove(&key.replace("~1", "/").replace("~0", "~")).is_some(),
            _ => false,
        };
    }
    let Some(value) = document.pointer_mut(place) else { return false };
    let new = match (change, &*value) {
        (Change::Remove, _) => return false,
        (Change::Null, _) => Value::Null,
        (Change::Renumber, Value::Number(_)) => json!(77),
        (Change::Renumber, _) => json!(-1),
        (Change::Text, Value::String(_)) => return false,
        (Change::Text, other) => json!(other.to_string()),
        (Change::Fraction, Value::Number(number)) => json!(number.as_f64().unwrap_or(0.0) + 0.25),
        (Change::Fraction, _) => return false,
    };
    let changed = *value != new;
    *value = new;
    changed
}

/// Returns true if an answer may fail or differ when the field at `place` is changed. `several`: it is one of several
/// answers.
fn is_needed(place: &str, change: Change, several: bool) -> bool {
    let keys: Vec<&str> = place.split('/').filter(|key| key.parse::<usize>().is_err()).collect();
    let Some(last) = keys.last() else { return false };
    // The index of an answer tells it apart from others; that of a call does not.
    let of_an_answer = *last == "index" && !keys.contains(&"tool_calls") && (several || change == Change::Renumber);
    // Values inside arguments or signed thinking are the model's own.
    let own =
        keys.iter().any(|key| matches!(*key, "args" | "arguments" | "input" | "extra_content" | "reasoning_details"));
    // A place that ends in a position in a list is the whole item.
    let item = !place.ends_with(last);
    // A changed `error` field can report an error that was not there.
    let error = keys.contains(&"error");
    NEEDED.contains(last) || of_an_answer || own || item || error
}

/// Calls `check` with each fixture whose name has that ending: provider, case, text.
fn each(ending: &str, mut check: impl FnMut(&'static dyn Provider, &str, &str)) {
    let mut found = 0;
    for provider in PROVIDERS {
        let Ok(files) = fs::read_dir(folder().join(provider.name())) else { continue };
        for file in files {
            let file = file.expect("entry").path();
            let name = file.file_name().and_then(|name| name.to_str()).expect("name").to_owned();
            if let Some(case) = name.strip_suffix(ending) {
                check(*provider, case, &fs::read_to_string(&file).expect("fixture"));
                found += 1;
            }
        }
    }
    assert!(found > 4, "fixtures {ending}");
}

#[test]
fn whole_answers_survive_a_change_of_any_field() {
    each(".answer.json", |provider, case, text| {
        let Ok(answer) = provider.answer(text.as_bytes()) else { return };
        let expected = said(&answer);
        let several = answer.choices.len() > 1;
        let document: Value = serde_json::from_str(text).expect("JSON");
        let mut all = Vec::new();
        places(&document, "", &mut all);
        for place in all {
            for change in CHANGES {
                let mut changed = document.clone();
                if !apply(&mut changed, &place, change) {
                    continue;
                }
                let what = format!("{}/{case} {place} {change:?}", provider.name());
                match provider.answer(changed.to_string().as_bytes()) {
                    Ok(answer) if !is_needed(&place, change, several) => assert_eq!(said(&answer), expected, "{what}"),
                    // Any answer is accepted, with the content of the field or without it.
                    Ok(_) => {}
                    Err(error) => {
                        assert!(is_needed(&place, change, several), "{what}: {error}");
                        assert!(!error.to_string().is_empty(), "{what}");
                    }
                }
            }
        }
    });
}

/// The events of a stream: name and data.
fn events(text: &str) -> Vec<(String, String)> {
    let mut parser = sse::Parser::default();
    let mut events = Vec::new();
    parser.push(text.as_bytes()).expect("short");
    while let Some(event) = parser.next() {
        events.push((event.name.to_owned(), String::from_utf8(event.data.to_vec()).expect("UTF-8")));
    }
    if let Some(event) = parser.finish() {
        events.push((event.name.to_owned(), String::from_utf8(event.data.to_vec()).expect("UTF-8")));
    }
    events
}

/// The content of a stream, and which of its events were refused.
fn streamed(provider: &dyn Provider, events: &[(String, String)]) -> (Said, Vec<(usize, StreamError)>) {
    let mut decoder = provider.stream();
    let (mut answer, mut refused, mut out) = (ChatResponse::default(), Vec::new(), Vec::new());
    for (at, (name, data)) in events.iter().enumerate() {
        if let Err(error) = decoder.decode(sse::Event { name, data: data.as_bytes() }, &mut out) {
            refused.push((at, error));
        }
        out.drain(..).for_each(|piece| answer.absorb(&piece));
    }
    (said(&answer), refused)
}

#[test]
fn streams_survive_a_change_of_any_field() {
    each(".stream.txt", |provider, case, text| {
        let events = events(text);
        let (expected, refused) = streamed(provider, &events);
        if !refused.is_empty() {
            return;
        }
        let several = false;
        for at in 0..events.len() {
            let Ok(document) = serde_json::from_str::<Value>(&events[at].1) else { continue };
            let mut all = Vec::new();
            places(&document, "", &mut all);
            for place in all {
                for change in CHANGES {
                    let mut changed = document.clone();
                    if !apply(&mut changed, &place, change) {
                        continue;
                    }
                    let what = format!("{}/{case} event {at} {place} {change:?}", provider.name());
                    let mut events = events.clone();
                    events[at].1 = changed.to_string();
                    let (found, refused) = streamed(provider, &events);
                    if !is_needed(&place, change, several) {
                        assert_eq!((&found, &refused[..]), (&expected, &[][..]), "{what}");
                        continue;
                    }
                    // Other events are lost only if they belong to a call that now has no name.
                    let nameless = |error: &StreamError| error.to_string().contains("no function name");
                    let others = refused.iter().filter(|(of, error)| *of != at && !nameless(error));
                    assert_eq!(others.count(), 0, "{what}: {refused:?}");
                    // The content of the other events is complete.
                    let rest: String = {
                        let mut without = events.clone();
                        without.remove(at);
                        streamed(provider, &without).0.text
                    };
                    let mut left = found.text.chars();
                    assert!(rest.chars().all(|character| left.any(|known| known == character)), "{what}: {found:?}");
                }
            }
        }
    });
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn several_changes_at_once_are_read_or_refused(seed in proptest::collection::vec((any::<u16>(), 0_usize..5), 1..4)) {
        each(".answer.json", |provider, _, text| {
            let mut document: Value = serde_json::from_str(text).expect("JSON");
            for (place, change) in &seed {
                let mut all = Vec::new();
                places(&document, "", &mut all);
                if let Some(place) = all.get(usize::from(*place) % all.len().max(1)) {
                    apply(&mut document, place, CHANGES[*change]);
                }
            }
            // Read, or refused with a message, but never a panic.
            if let Err(error) = provider.answer(document.to_string().as_bytes()) {
                assert!(!error.to_string().is_empty());
            }
        });
    }
}

/// Marks the place in a text where half a surrogate pair, or a byte that is not UTF-8, is inserted.
const MARK: &str = "MARK";

/// The document as bytes, with `with` inserted into the string at `place`; `None` if there is no string.
fn marked(document: &Value, place: &str, with: &[u8]) -> Option<Vec<u8>> {
    let mut document = document.clone();
    let Some(Value::String(text)) = document.pointer_mut(place) else { return None };
    let middle = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.insert_str(middle, MARK);
    let text = document.to_string();
    let (before, after) = text.split_once(MARK)?;
    Some([before.as_bytes(), with, after.as_bytes()].concat())
}

#[test]
fn what_is_no_text_becomes_the_replacement_character_and_loses_nothing_else() {
    let instead = |text: &str| text.replace(MARK, "\u{fffd}");
    each(".answer.json", |provider, case, text| {
        let document: Value = serde_json::from_str(text).expect("JSON");
        let mut all = Vec::new();
        places(&document, "", &mut all);
        for place in all {
            let Some(plain) = marked(&document, &place, MARK.as_bytes()) else { continue };
            let Ok(plain) = provider.answer(&plain) else { continue };
            let expected = said(&plain);
            for with in [&b"\\ud83d"[..], b"\\uDE00", b"\xff", b"\xf0\x9f\x98"] {
                let what = format!("{}/{case} {place} {}", provider.name(), with.escape_ascii());
                let body = marked(&document, &place, with).expect("marked");
                let answer = provider.answer(&body).unwrap_or_else(|error| panic!("{what}: {error}"));
                let found = said(&answer);
                assert_eq!(
                    (&found.text, &found.reasoning),
                    (&instead(&expected.text), &instead(&expected.reasoning)),
                    "{what}"
                );
                let calls = expected.calls.iter().map(|(name, arguments)| (instead(name), instead(arguments)));
                assert_eq!(found.calls, calls.collect::<Vec<_>>(), "{what}");
            }
        }
    });
    each(".stream.txt", |provider, case, text| {
        let events = events(text);
        for at in 0..events.len() {
            let Ok(document) = serde_json::from_str::<Value>(&events[at].1) else { continue };
            let mut all = Vec::new();
            places(&document, "", &mut all);
            for place in all {
                let run = |with: &[u8]| {
                    let data = marked(&document, &place, with)?;
                    let (mut decoder, mut answer, mut out) = (provider.stream(), ChatResponse::default(), Vec::new());
                    let mut as_it_came = true;
                    for (position, (name, text)) in events.iter().enumerate() {
                        let data = if position == at { &data } else { text.as_bytes() };
                        let decoded = decoder.decode(sse::Event { name, data }, &mut out);
                        if position == at {
                            decoded.ok()?;
                            as_it_came = decoder.as_openai(data);
                        }
                        out.drain(..).for_each(|piece| answer.absorb(&piece));
                    }
                    Some((said(&answer), as_it_came))
                };
                let Some((expected, _)) = run(MARK.as_bytes()) else { continue };
                for with in [&b"\\ud83d"[..], b"\xff"] {
                    let what = format!("{}/{case} event {at} {place} {}", provider.name(), with.escape_ascii());
                    let (found, as_it_came) = run(with).unwrap_or_else(|| panic!("{what}: refused"));
                    assert_eq!(
                        (&found.text, &found.reasoning),
                        (&instead(&expected.text), &instead(&expected.reasoning)),
                        "{what}"
                    );
                    let calls = expected.calls.iter().map(|(name, arguments)| (instead(name), instead(arguments)));
                    assert_eq!(found.calls, calls.collect::<Vec<_>>(), "{what}");
                    assert!(!provider.speaks_openai() || !as_it_came, "{what}: it must not go out as it came");
                }
            }
        }
    });
}
