//! Frames of ours that are no events: replies, errors, snapshots.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::request::Refusal;
use crate::base::ws::Utf8Bytes;
use crate::hub::{Dropped, Filter};
use crate::types::view::View;
use crate::types::{CallId, Seq, Turn};

/// Turns of a snapshot, at most.
const SNAPSHOT_TURNS: usize = 200;
/// Their bytes as JSON, at most.
const SNAPSHOT_TURN_BYTES: usize = 256 * 1024;
/// Insights of a snapshot, bytes as JSON: with the turns and the `meta`, it stays under the 1 MiB of a frame.
const SNAPSHOT_INSIGHT_BYTES: usize = 700 * 1024;

/// The first frame.
pub(super) fn welcome(ping_interval_ms: u128) -> Utf8Bytes {
    format!(r#"{{"type":"welcome","version":1,"ping_interval_ms":{ping_interval_ms}}}"#).into()
}

/// A reply's head: `{"id":…,"type":"…"`. Open: whoever calls it closes the object.
fn reply(id: Option<&Value>, kind: &str) -> String {
    match id {
        Some(id) => format!(r#"{{"id":{id},"type":"{kind}""#),
        None => format!(r#"{{"type":"{kind}""#),
    }
}

/// `pong`
pub(super) fn pong(id: Option<&Value>) -> Utf8Bytes {
    (reply(id, "pong") + "}").into()
}

/// `unsubscribed`
pub(super) fn unsubscribed(id: Option<&Value>, subscription: &str) -> Utf8Bytes {
    format!(r#"{},"subscription":"{subscription}"}}"#, reply(id, "unsubscribed")).into()
}

/// Where a call of a new subscription stands.
#[derive(Debug, Serialize)]
pub(super) struct Standing {
    /// Names its history; `null` where the call does not exist yet.
    pub epoch: Option<String>,
    /// Its head.
    pub seq: Seq,
    /// Whether `resume` is met: no snapshot comes.
    pub recovered: bool,
}

/// `subscribed`; `all` = (recovered, cursor) of a subscription to everything.
pub(super) fn subscribed(
    id: Option<&Value>,
    subscription: &str,
    calls: &[(CallId, Standing)],
    all: Option<(bool, String)>,
) -> Utf8Bytes {
    let calls: Map<String, Value> =
        calls.iter().map(|(call, standing)| (call.as_str().to_owned(), json!(standing))).collect();
    let all = all.map(|(recovered, cursor)| format!(r#","recovered":{recovered},"cursor":"{cursor}""#));
    format!(
        r#"{},"subscription":"{subscription}","calls":{}{}}}"#,
        reply(id, "subscribed"),
        Value::Object(calls),
        all.unwrap_or_default()
    )
    .into()
}

/// `error` about something that the client sent.
pub(super) fn refused(refusal: &Refusal) -> Utf8Bytes {
    let temporary = refusal.code == "journal_unavailable";
    error(refusal.id.as_ref(), refusal.code, &refusal.message, false, temporary)
}

/// `error`
pub(super) fn error(id: Option<&Value>, code: &str, message: &str, fatal: bool, temporary: bool) -> Utf8Bytes {
    let message = Value::String(message.to_owned());
    format!(r#"{},"code":"{code}","message":{message},"fatal":{fatal},"temporary":{temporary}}}"#, reply(id, "error"))
        .into()
}

/// `lagged`; `members` are those of every push, each followed by a comma.
pub(super) fn lagged(members: &str, dropped: Dropped) -> Utf8Bytes {
    let Dropped { partials, deltas } = dropped;
    format!(r#"{{"type":"lagged",{members}"dropped":{{"partials":{partials},"deltas":{deltas}}}}}"#).into()
}

/// `reconnect`
pub(super) fn reconnect(after_ms: u64, grace_ms: u128) -> Utf8Bytes {
    format!(r#"{{"type":"reconnect","after_ms":{after_ms},"grace_ms":{grace_ms}}}"#).into()
}

/// `snapshot`: the call as it stands, as far as `filter` wants it.
pub(super) fn snapshot(members: &str, view: &View, filter: &Filter) -> Utf8Bytes {
    let turns = if filter.include.turns { turns(view, filter.include.words) } else { String::new() };
    let insights = insights(view, filter);
    let mut out = String::with_capacity(turns.len() + insights.len() + 512);
    out.push_str(r#"{"type":"snapshot","#);
    out.push_str(members);
    out.push_str(&format!(
        r#""call_id":"{}","epoch":{},"seq":{},"state":{{"status":"{}","meta":{}{turns},"insights":{insights}}}}}"#,
        view.call_id,
        Value::String(view.epoch.clone()),
        view.seq,
        view.status,
        Value::Object(view.meta.clone()),
    ));
    out.into()
}

/// `,"turns_from":N,"turns":[…]` with the newest turns.
fn turns(view: &View, words: bool) -> String {
    let mut newest: Vec<String> = Vec::new();
    let mut bytes = 0;
    for turn in view.turns.iter().rev().take(SNAPSHOT_TURNS) {
        let text = turn_text(turn, words);
        bytes += text.len() + 1;
        if bytes > SNAPSHOT_TURN_BYTES && !newest.is_empty() {
            break;
        }
        newest.push(text);
    }
    let first = view.turns.len() - newest.len();
    let from = view.turns.get(first).map_or(0, |turn| turn.turn);
    newest.reverse();
    format!(r#","turns_from":{from},"turns":[{}]"#, newest.join(","))
}

fn turn_text(turn: &Turn, words: bool) -> String {
    // Plain data into memory: cannot fail.
    let plain = serde_json::to_string(turn).unwrap_or_else(|_| "{}".to_owned());
    if !words || turn.words.is_empty() {
        return plain;
    }
    let words = serde_json::to_string(&turn.words).unwrap_or_else(|_| "[]".to_owned());
    if plain.len() + words.len() > SNAPSHOT_TURN_BYTES {
        return plain;
    }
    format!(r#"{{"words":{words},{}"#, &plain[1..])
}

/// Insights by name. Where they are too large for a frame, per-turn insights of the oldest turns are left out.
fn insights(view: &View, filter: &Filter) -> String {
    let mut wanted: Map<String, Value> = view
        .insights
        .iter()
        .filter(|(name, _)| filter.wants_analysis(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    loop {
        let text = Value::Object(wanted.clone()).to_string();
        if text.len() <= SNAPSHOT_INSIGHT_BYTES || !halve(&mut wanted) {
            return text;
        }
    }
}

/// Leaves out the older half of the per-turn insights; `false` if there was nothing to leave out.
fn halve(insights: &mut Map<String, Value>) -> bool {
    let mut halved = false;
    for value in insights.values_mut() {
        let Some(turns) = value.get_mut("turns").and_then(Value::as_object_mut) else { continue };
        let mut numbers: Vec<u64> = turns.keys().filter_map(|key| key.parse().ok()).collect();
        numbers.sort_unstable();
        let Some(middle) = numbers.get(numbers.len() / 2).copied() else { continue };
        let before = turns.len();
        if before == 1 {
            turns.clear();
        } else {
            turns.retain(|key, _| key.parse().is_ok_and(|number: u64| number >= middle));
        }
        halved |= turns.len() < before;
    }
    halved
}
