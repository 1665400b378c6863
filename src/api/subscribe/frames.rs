//! Frames of ours that are no events: replies, errors, snapshots.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::request::Refusal;
use crate::base::ws::Utf8Bytes;
use crate::call::fitting::{Fitting, within};
use crate::hub::{Dropped, Filter};
use crate::session::command::MAX_MESSAGE_BYTES;
use crate::types::view::View;
use crate::types::{CallId, MAX_FRAME_BYTES, Seq, Turn};

/// Turns of a snapshot, at most.
pub const SNAPSHOT_TURNS: usize = 200;
/// Their bytes as JSON, at most.
const SNAPSHOT_TURN_BYTES: usize = 256 * 1024;
/// Space reserved in a snapshot for everything except turns, `meta` and insights, bytes.
const SNAPSHOT_FRAME_BYTES: usize = 4 * 1024;

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
    let message = Value::from(&message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)]);
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
    let meta = Value::Object(view.meta.clone()).to_string();
    let room = MAX_FRAME_BYTES.saturating_sub(turns.len() + meta.len() + SNAPSHOT_FRAME_BYTES);
    let wanted = view.insights.iter().filter(|(name, _)| filter.wants_analysis(name));
    let Fitting { insights, omitted } = within(wanted.map(|(name, value)| (name.clone(), value.clone())), room);
    let insights = Value::Object(insights).to_string();
    let omitted = if omitted.is_empty() { String::new() } else { format!(r#","insights_omitted":{}"#, json!(omitted)) };
    let mut out = String::with_capacity(turns.len() + meta.len() + insights.len() + 512);
    out.push_str(r#"{"type":"snapshot","#);
    out.push_str(members);
    out.push_str(&format!(
        r#""call_id":"{}","epoch":{},"seq":{},"state":{{"status":"{}","meta":{meta}{turns},"insights":{insights}{omitted}}}}}"#,
        view.call_id,
        Value::String(view.epoch.clone()),
        view.seq,
        view.status,
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
