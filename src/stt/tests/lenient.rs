//! One field of a frame is removed, set to null, respelled or given another value, for any field of any frame of any
//! dialect. The content of the frame is still delivered unless the dialect needs the field ([`Dialect::needs`]). In
//! that case only the smallest part is lost, an error names the field, and turns of other frames are not touched.

use std::collections::BTreeMap;

use crate::base::testing::kept;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{fixtures, line};
use crate::stt::{DIALECTS, Dialect};
use crate::types::SttEvent;

/// The path to a value, by keys and positions.
type Path = Vec<Value>;

/// Every path in `value`, except to the value itself.
fn places(value: &Value) -> Vec<Path> {
    fn walk(value: &Value, at: &mut Path, all: &mut Vec<Path>) {
        let inside: Vec<(Value, &Value)> = match value {
            Value::Object(fields) => fields.iter().map(|(key, field)| (json!(key), field)).collect(),
            Value::Array(items) => items.iter().enumerate().map(|(index, item)| (json!(index), item)).collect(),
            _ => Vec::new(),
        };
        for (step, value) in inside {
            at.push(step);
            all.push(at.clone());
            walk(value, at, all);
            at.pop();
        }
    }
    let mut all = Vec::new();
    walk(value, &mut Vec::new(), &mut all);
    all
}

fn at<'v>(value: &'v mut Value, path: &[Value]) -> &'v mut Value {
    path.iter().fold(value, |value, step| match step {
        Value::String(key) => &mut value[key.as_str()],
        step => &mut value[step.as_u64().expect("position") as usize],
    })
}

/// A path as [`Dialect::needs`] writes it, such as `words[].text`.
fn pattern(path: &[Value]) -> String {
    path.iter().fold(String::new(), |text, step| match step {
        Value::String(key) if text.is_empty() => key.clone(),
        Value::String(key) => format!("{text}.{key}"),
        _ => format!("{text}[]"),
    })
}

/// The frame as JSON if it is a vendor's; `end` and `meta` are our own frames, and strict.
fn vendors(frame: &str) -> Option<Value> {
    serde_json::from_str::<Value>(frame)
        .ok()
        .filter(|frame| frame.is_object() && !matches!(frame["type"].as_str(), Some("end" | "meta")))
}

/// Fixtures of vendors' frames without envelopes: the contents of envelopes have the same fields one level down, and
/// `auto` has no frames of its own.
fn bare() -> impl Iterator<Item = (&'static dyn Dialect, String, Vec<String>)> {
    let enveloped = |name: &str| matches!(name, "sdk" | "python");
    let all = fixtures().into_iter();
    all.filter(move |(dialect, name, _)| dialect.splits() && !dialect.picks() && !enveloped(name))
}

/// A change of one field.
#[derive(Debug, Clone)]
enum Change {
    Remove,
    Put(Value),
    /// The same value, spelled differently.
    Respell,
    /// A number with a fraction.
    Fraction,
}

const OTHERS: [&str; 11] = [
    "null",
    "{}",
    "[]",
    "{\"x\":[1]}",
    "[{\"x\":1}]",
    "\"soon\"",
    "7",
    "true",
    // The smallest and largest values of a parser's integers and floats.
    "-9223372036854775808",
    "18446744073709551615",
    "-1.7976931348623157e308",
];

fn changes() -> Vec<Change> {
    let others = OTHERS.iter().map(|other| Change::Put(serde_json::from_str(other).expect("JSON")));
    [Change::Remove, Change::Respell, Change::Fraction].into_iter().chain(others).collect()
}

/// The frame with the change made; `None` if the change changes nothing.
fn changed(frame: &Value, path: &[Value], change: &Change) -> Option<Value> {
    let mut frame = frame.clone();
    let (last, parent) = path.split_last()?;
    match change {
        Change::Remove => match at(&mut frame, parent) {
            Value::Object(fields) => drop(fields.shift_remove(last.as_str()?)),
            Value::Array(items) => drop(items.remove(usize::try_from(last.as_u64()?).ok()?)),
            _ => return None,
        },
        Change::Put(other) => {
            let value = at(&mut frame, path);
            if value == other {
                return None;
            }
            *value = other.clone();
        }
        Change::Respell => {
            let value = at(&mut frame, path);
            *value = match &*value {
                Value::Number(number) => json!(number.to_string()),
                Value::Bool(flag) => json!(flag.to_string()),
                Value::String(text) => {
                    let number = serde_json::from_str::<Value>(text).ok().filter(Value::is_number);
                    number.filter(|number| text.as_str() == number.to_string().as_str())?
                }
                _ => return None,
            };
        }
        Change::Fraction => {
            let value = at(&mut frame, path);
            *value = json!(value.as_f64()? + 0.25);
        }
    }
    Some(frame)
}

/// The output of a dialect for frames.
#[derive(Debug, Default)]
struct Said {
    /// Key and text of the final turns, in order; if a turn was sent again, its newest text.
    turns: Vec<(String, String)>,
    /// Every event, one per line.
    lines: Vec<String>,
    /// Errors of frames and of parts of frames.
    errors: Vec<String>,
    /// Number of events of the changed frame.
    of_frame: usize,
}

impl Said {
    /// The text of all turns, without white space.
    fn text(&self) -> String {
        self.turns.iter().flat_map(|(_, text)| text.chars()).filter(|letter| !letter.is_whitespace()).collect()
    }

    /// The letters of that text in sorted order: independent of the order of turns and of where they end.
    fn letters(&self) -> Vec<char> {
        let mut letters: Vec<char> = self.text().chars().collect();
        letters.sort_unstable();
        letters
    }
}

fn said(dialect: &dyn Dialect, frames: &[String], special: usize) -> Said {
    let mut decoder = dialect.open();
    let mut said = Said::default();
    let mut unnamed = 0;
    for (index, frame) in frames.iter().enumerate() {
        let mut out = Vec::new();
        match decoder.decode(frame, &mut out) {
            Ok(lost) => said.errors.extend(lost.into_iter().map(|error| error.message)),
            Err(error) => {
                assert!(out.is_empty());
                said.errors.push(error.message);
            }
        }
        if index == special {
            said.of_frame = out.len();
        }
        if index + 1 == frames.len() {
            decoder.finish(&mut out);
        }
        for event in out {
            said.lines.push(line(&event));
            let SttEvent::Final(turn) = event else { continue };
            if turn.text.trim().is_empty() {
                continue;
            }
            let key = match &turn.key {
                crate::types::TurnKey::Next | crate::types::TurnKey::Ended(_) => {
                    unnamed += 1;
                    format!("next {unnamed}")
                }
                key => format!("{key:?}"),
            };
            match said.turns.iter_mut().find(|(known, _)| *known == key) {
                Some((_, text)) => *text = turn.text,
                None => said.turns.push((key, turn.text)),
            }
        }
    }
    said
}

/// The output for `frames`, and for `frames` without the one at `index`.
fn baseline(dialect: &dyn Dialect, frames: &[String], index: usize) -> (Said, Said) {
    let mut without = frames.to_vec();
    without.remove(index);
    (said(dialect, frames, index), said(dialect, &without, usize::MAX))
}

/// Returns true if `text` contains the letters of `part`, in order.
fn holds(text: &str, part: &str) -> bool {
    let mut letters = text.chars();
    part.chars().all(|wanted| letters.any(|letter| letter == wanted))
}

/// Returns true if the sorted `letters` have every letter of `part`, as often as `part` has it.
fn holds_letters(letters: &[char], part: &str) -> bool {
    let mut wanted: Vec<char> = part.chars().collect();
    wanted.sort_unstable();
    let mut letters = letters.iter();
    wanted.iter().all(|wanted| letters.any(|letter| letter == wanted))
}

/// Makes the change. Fails with a description if the result is wrong.
fn verdict(
    dialect: &dyn Dialect,
    frames: &[String],
    index: usize,
    path: &[Value],
    change: &Change,
    (before, without): &(Said, Said),
) -> Result<(), String> {
    let mut frame: Value = serde_json::from_str(&frames[index]).map_err(|_| "no JSON")?;
    let Some(changed) = changed(&frame, path, change) else { return Ok(()) };
    let mut after = frames.to_vec();
    after[index] = changed.to_string();
    let after = said(dialect, &after, index);
    let pattern = pattern(path);
    let needed = dialect.needs().contains(&pattern.as_str());
    let text = after.text();
    let told = |what: &str| {
        Err(format!("{}: {pattern} {change:?}: {what}\nbefore {before:#?}\nafter {after:#?}", dialect.name()))
    };
    // Another value that is accepted changes the meaning: words become final that were not, or other words come in
    // between.
    let scalar = |value: &Value| value.is_boolean() || value.is_string() || value.is_number();
    let taken_in = after.errors.len() <= before.errors.len();
    let respoken = taken_in && matches!(change, Change::Put(put) if scalar(put) && scalar(at(&mut frame, path)));
    // A frame that now has another turn's id revises that turn.
    let taken = match change {
        Change::Put(id) => format!("Vendor({:?})", id.as_str().map_or_else(|| id.to_string(), str::to_owned)),
        _ => String::new(),
    };
    // Whatever happens to this frame, the text of the other frames stays; words of this frame may come in between.
    for (_, other) in without.turns.iter().filter(|(key, _)| *key != taken) {
        let other: String = other.chars().filter(|letter| !letter.is_whitespace()).collect();
        let stands = if respoken { holds_letters(&after.letters(), &other) } else { holds(&text, &other) };
        if !stands && holds(&before.text(), &other) {
            return told(&format!("a turn of other frames is gone: {other:?}"));
        }
    }
    if matches!(change, Change::Respell) {
        return if after.turns == before.turns { Ok(()) } else { told("another spelling says something else") };
    }
    let absent = matches!(change, Change::Remove | Change::Put(Value::Null));
    if !needed && absent && after.errors.len() > before.errors.len() {
        return told("a field that nobody needs is asked for");
    }
    if after.letters() == before.letters() {
        return Ok(());
    }
    if !needed {
        return told("what was said is lost, and the field is not needed");
    }
    // Text was lost with a field that is needed: an error must name the field, unless the frame now validly says
    // something else, or nothing.
    let name = path.iter().rev().find_map(Value::as_str).unwrap_or_default();
    let named = after.errors.iter().any(|error| error.contains(name));
    let list = at(&mut frame, path).is_array() || path.last().is_some_and(Value::is_u64);
    let none = absent || matches!(change, Change::Put(Value::Array(_)));
    let else_said = after.of_frame > 0 || after.letters() != without.letters();
    // In Gemini's messages `finished` alone is valid: no more words come.
    let closes = dialect.name() == "gemini_live"
        && name == "text"
        && path.split_last().is_some_and(|(_, message)| at(&mut frame, message).get("finished").is_some());
    // An object without its lists is valid and has no content.
    let emptied = matches!(change, Change::Put(Value::Object(_)))
        && at(&mut frame, path).as_object().is_some_and(|members| members.values().any(Value::is_array));
    if named || else_said || respoken || closes || emptied || (list && none) {
        Ok(())
    } else {
        told("no error names the field")
    }
}

#[test]
fn one_changed_field_loses_no_more_than_documented() {
    let (mut tried, mut wrong) = (0, Vec::new());
    for (dialect, _, frames) in bare().filter(|(.., name, _)| name == "full") {
        let mut seen = BTreeMap::<String, usize>::new();
        for (index, frame) in frames.iter().enumerate() {
            let Some(frame) = vendors(frame) else { continue };
            let baseline = baseline(dialect, &frames, index);
            for path in places(&frame) {
                // The same field is changed in only two frames, as examples of all.
                let seen = seen.entry(pattern(&path)).or_default();
                *seen += 1;
                if *seen > 2 {
                    continue;
                }
                for change in changes() {
                    tried += 1;
                    wrong.extend(verdict(dialect, &frames, index, &path, &change, &baseline).err());
                }
            }
        }
    }
    let shown: Vec<&str> = wrong.iter().filter_map(|wrong| wrong.lines().next()).collect();
    assert!(wrong.is_empty(), "{} of {tried}:\n{}\n\nthe first: {}", wrong.len(), shown.join("\n"), wrong[0]);
    assert!(tried > 5000, "{tried}");
}

#[test]
fn every_dialect_says_what_it_needs() {
    for dialect in DIALECTS.iter().filter(|dialect| !dialect.picks()) {
        let fixtures = fixtures();
        let frames =
            fixtures.iter().filter(|(other, ..)| other.name() == dialect.name()).flat_map(|(.., frames)| frames);
        let frames = frames.map(String::as_str).chain([dialect.example()]);
        let places: Vec<String> = frames
            .filter_map(|frame| serde_json::from_str::<Value>(frame).ok())
            .flat_map(|frame| places(&frame))
            .map(|path| pattern(&path))
            .collect();
        assert!(!dialect.needs().is_empty(), "{}: Dialect::needs names nothing", dialect.name());
        for need in dialect.needs() {
            assert!(places.iter().any(|place| place == need), "{}: no frame has {need}", dialect.name());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..kept() })]

    /// Like the test above, but over random fixtures, fields and changes, including two changes in one frame.
    #[test]
    fn changed_fields_leave_other_turns_alone(
        which in any::<prop::sample::Index>(), frame in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(), change in any::<prop::sample::Index>(),
        second in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(),
    ) {
        let fixtures: Vec<_> = bare().collect();
        let (dialect, _, frames) = &fixtures[which.index(fixtures.len())];
        let index = frame.index(frames.len());
        let Some(frame) = vendors(&frames[index]) else { return Ok(()) };
        let all = changes();
        let all_places = places(&frame);
        prop_assume!(!all_places.is_empty());
        let path = &all_places[place.index(all_places.len())];
        let baseline = baseline(*dialect, frames, index);
        if let Err(wrong) = verdict(*dialect, frames, index, path, &all[change.index(all.len())], &baseline) {
            prop_assert!(false, "{}", wrong);
        }
        // A second change anywhere in the frame: decoding must not panic.
        let Some(once) = changed(&frame, path, &all[change.index(all.len())]) else { return Ok(()) };
        let places = places(&once);
        prop_assume!(!places.is_empty());
        let Some(twice) = changed(&once, &places[second.index(places.len())], &all[other.index(all.len())]) else { return Ok(()) };
        let mut after = frames.clone();
        after[index] = twice.to_string();
        said(*dialect, &after, index);
    }
}
