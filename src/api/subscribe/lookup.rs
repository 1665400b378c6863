//! What subscriptions read from the journal besides events.
//!
//! Knows no subscription.

use crate::hub::{Frame, Hub, HubError, contains};
use crate::journal::{CallState, Entry, JournalError};
use crate::protocol::ErrorCode;
use crate::types::{CallId, JsonMap, Seq};

/// Bytes of a log that are read at once to find an earlier `meta` of a call.
const FOLD_BYTES: usize = 64 * 1024;

/// What must be looked up about a call before one of its events can be admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The `meta` in the call's directory entry.
    Meta,
    /// The `meta` before this event.
    MetaBefore(Seq),
}

/// The newest readable event of a call, and its directory entry; `None` if the call does not exist. `Err` is (code,
/// message).
pub(super) async fn look_up(call: &CallId, hub: &Hub) -> Result<Option<(Seq, Entry)>, (ErrorCode, String)> {
    let unavailable = |error: JournalError| (ErrorCode::JournalUnavailable, format!("call {call}: {error}"));
    let head = match hub.journal().head(call).await {
        Ok(head) => head,
        Err(JournalError::Damaged { after, .. }) => after,
        Err(JournalError::UnknownCall) => return Ok(None),
        Err(error) => return Err(unavailable(error)),
    };
    // Read after the head, so that the reader gets every event that changes the entry from now on.
    let entry = hub.journal().entry(call).await.map_err(unavailable)?;
    Ok(entry.map(|entry| (head, entry)))
}

/// Returns true if a call with this `entry` and `head` can be resumed from (epoch, seq).
pub(super) async fn is_met((epoch, seq): &(String, Seq), entry: &Entry, head: Seq, hub: &Hub) -> bool {
    *epoch == entry.epoch && *seq <= head && hub.journal().read(&entry.call_id, *seq, 1).await.is_ok()
}

/// A message that the call does not exist, and which calls do.
pub(super) async fn unknown(call: &CallId, hub: &Hub) -> String {
    const SHOWN: usize = 5;
    let open = hub.journal().page(Some(CallState::Open), None, SHOWN + 1).await.unwrap_or_default();
    let mut names: Vec<&str> = open.iter().map(|entry| entry.call_id.as_str()).take(SHOWN).collect();
    if open.len() > SHOWN {
        names.push("…");
    }
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    format!("no call '{call}'; with \"wait\": true the call need not exist yet; open calls: {names}")
}

/// Returns true if the call's `meta`, as `lookup` finds it, matches `wanted`.
///
/// # Errors
/// `Unavailable`: the lookup can be repeated.
pub(super) async fn matches(call: CallId, lookup: Lookup, wanted: JsonMap, hub: Hub) -> Result<bool, HubError> {
    let meta = match lookup {
        Lookup::Meta => hub.journal().entry(&call).await.map(|entry| entry.map(|entry| entry.meta)),
        Lookup::MetaBefore(seq) => meta_before(&call, seq, &hub).await,
    };
    match meta {
        Ok(meta) => Ok(meta.is_some_and(|meta| contains(&meta, &wanted))),
        Err(JournalError::Unavailable(message)) => Err(HubError::Unavailable(message)),
        // An erased call matches nothing.
        Err(_) => Ok(false),
    }
}

/// The call's `meta` before its event `seq`, from its log.
async fn meta_before(call: &CallId, seq: Seq, hub: &Hub) -> Result<Option<JsonMap>, JournalError> {
    let mut meta = None;
    let mut after = 0;
    while after + 1 < seq {
        let records = hub.journal().read(call, after, FOLD_BYTES).await?;
        let Some(last) = records.last() else { break };
        after = last.seq;
        let before = records.into_iter().take_while(|record| record.seq < seq);
        for frame in before.filter_map(|record| Frame::new(call, record)) {
            meta = frame.meta().or(meta);
        }
        // Lets the other tasks of this thread run while a long log is read.
        tokio::task::yield_now().await;
    }
    Ok(meta)
}
