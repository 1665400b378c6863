//! Builds the frames that are not events: replies, errors, snapshots. Their types are in `protocol::subscribe`.

use std::borrow::Cow;

use serde_json::Value;

use super::request::Refusal;
use crate::base::measure;
use crate::base::ws::Utf8Bytes;
use crate::call::fitting::{Fitting, within};
use crate::hub::{Cursor, Dropped, Filter};
use crate::protocol::subscribe::{
    self, Lagged, Pong, ShownTurn, Snapshot, State, Subscribed, SubscribedCall, Unsubscribed, Welcome,
};
use crate::protocol::{self, ErrorCode, ErrorFrame, Reconnect, tag};
use crate::types::view::View;
use crate::types::{CallId, MAX_FRAME_BYTES, Turn, TurnNo};

/// Maximum number of turns in a snapshot.
pub const SNAPSHOT_TURNS: usize = 200;
/// Maximum size of a snapshot's turns as JSON, bytes.
const SNAPSHOT_TURN_BYTES: usize = 256 * 1024;
/// Space reserved in a snapshot for everything except turns, `meta`, alerts and insights, bytes.
const SNAPSHOT_FRAME_BYTES: usize = 4 * 1024;

/// The first frame.
pub(super) fn welcome(ping_interval_ms: u64) -> Utf8Bytes {
    protocol::text(&Welcome { tag: tag::Welcome, version: protocol::VERSION, ping_interval_ms }).into()
}

pub(super) fn pong(id: Option<Value>) -> Utf8Bytes {
    protocol::text(&Pong { id, tag: tag::Pong }).into()
}

pub(super) fn unsubscribed(id: Option<Value>, subscription: String) -> Utf8Bytes {
    protocol::text(&Unsubscribed { id, tag: tag::Unsubscribed, subscription }).into()
}

/// `subscribed`; `all` is (recovered, cursor) of a subscription to all calls.
pub(super) fn subscribed(
    id: Option<Value>,
    subscription: &str,
    calls: Vec<(CallId, SubscribedCall)>,
    all: Option<(bool, Cursor)>,
) -> Utf8Bytes {
    let (recovered, cursor) = all.map(|(recovered, cursor)| (recovered, cursor.to_string())).unzip();
    let tag = tag::Subscribed;
    protocol::text(&Subscribed { id, tag, subscription: subscription.to_owned(), calls, recovered, cursor }).into()
}

/// `error` about a frame that the client sent.
pub(super) fn refused(refusal: Refusal) -> Utf8Bytes {
    let Refusal { id, code, message } = refusal;
    let temporary = code == ErrorCode::JournalUnavailable;
    protocol::text(&ErrorFrame { temporary, ..ErrorFrame::new(code, message).answering(id) }).into()
}

pub(super) fn error(error: &ErrorFrame) -> Utf8Bytes {
    protocol::text(error).into()
}

/// The `error` frame for a journal that cannot be read now. The read is tried again.
pub(super) fn journal_unavailable() -> Utf8Bytes {
    let message = "the journal cannot be used now; nothing is lost, and frames continue without any action";
    error(&ErrorFrame::new(ErrorCode::JournalUnavailable, message).temporary())
}

pub(super) fn lagged(subscription: &str, cursor: Option<Cursor>, dropped: Dropped) -> Utf8Bytes {
    let Dropped { partials, deltas } = dropped;
    let dropped = subscribe::Dropped { partials, deltas };
    let cursor = cursor.map(|cursor| cursor.to_string());
    protocol::text(&Lagged { tag: tag::Lagged, subscription: subscription.to_owned(), cursor, dropped }).into()
}

pub(super) fn reconnect(after_ms: u64, grace_ms: u64) -> Utf8Bytes {
    protocol::text(&Reconnect::new(after_ms, grace_ms)).into()
}

/// `snapshot`: the current state of the call, reduced to what `filter` includes.
pub(super) fn snapshot(subscription: &str, cursor: Option<Cursor>, view: &View, filter: &Filter) -> Utf8Bytes {
    let newest = filter.include.turns.then(|| newest_turns(view, filter.include.words));
    let turn_bytes = newest.as_ref().map_or(0, |newest| newest.bytes);
    let (turns_from, turns) = newest.map(|newest| (newest.from, newest.turns)).unzip();
    let alerts = (!filter.no_alerts).then_some(Cow::Borrowed(view.alerts.as_slice()));
    let fixed = turn_bytes + measure::value(&view.meta) + measure::value(&alerts) + SNAPSHOT_FRAME_BYTES;
    let room = MAX_FRAME_BYTES.saturating_sub(fixed);
    let wanted = view.insights.iter().filter(|(name, _)| filter.wants_analysis(name));
    let Fitting { insights, omitted } = within(wanted.map(|(name, value)| (name.clone(), value.clone())), room);
    let state = State {
        status: Cow::Borrowed(view.status),
        meta: Cow::Borrowed(&view.meta),
        turns_from,
        turns,
        insights,
        insights_omitted: omitted,
        alerts,
    };
    let snapshot = Snapshot {
        tag: tag::Snapshot,
        subscription: Cow::Borrowed(subscription),
        cursor: cursor.map(|cursor| cursor.to_string()),
        call_id: view.call_id.clone(),
        epoch: Cow::Borrowed(&view.epoch),
        seq: view.seq,
        state,
    };
    protocol::text(&snapshot).into()
}

/// The newest turns of a call, for a snapshot.
struct Newest<'a> {
    /// Ordinal of the first turn.
    from: TurnNo,
    turns: Vec<ShownTurn<'a>>,
    /// Size of the turns as JSON, bytes.
    bytes: usize,
}

fn newest_turns(view: &View, words: bool) -> Newest<'_> {
    let mut turns: Vec<ShownTurn<'_>> = Vec::new();
    let mut bytes = 0;
    for turn in view.turns.iter().rev().take(SNAPSHOT_TURNS) {
        let (shown, size) = shown(turn, words);
        if bytes + size > SNAPSHOT_TURN_BYTES && !turns.is_empty() {
            break;
        }
        bytes += size;
        turns.push(shown);
    }
    turns.reverse();
    let from = turns.first().map_or(0, |first| first.turn.turn);
    Newest { from, turns, bytes }
}

/// The turn and its size as JSON, with its words if they are wanted and fit.
fn shown(turn: &Turn, words: bool) -> (ShownTurn<'_>, usize) {
    /// Bytes of `"words":` and two commas.
    const MARKS: usize = 10;
    let plain = measure::value(turn) + 1;
    let word_bytes = if words && !turn.words.is_empty() { measure::value(&turn.words) + MARKS } else { 0 };
    let with_words = word_bytes > 0 && plain + word_bytes <= SNAPSHOT_TURN_BYTES;
    (ShownTurn { turn: Cow::Borrowed(turn), with_words }, if with_words { plain + word_bytes } else { plain })
}
