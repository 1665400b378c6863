//! What subscriptions look up in the journal, beside the events that their readers read.
//!
//! Knows no subscription.

use crate::hub::{Frame, Hub, HubError, contains};
use crate::journal::{CallState, Entry, JournalError};
use crate::protocol::ErrorCode;
use crate::types::{CallId, JsonMap, Seq};

/// Bytes of a log read at once to find a call's `meta` of old.
const FOLD_BYTES: usize = 64 * 1024;

/// What of a call must be looked up before one of its events can be admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Its `meta` as its entry has it.
    Meta,
    /// Its `meta` before this event.
    MetaBefore(Seq),
}

/// The newest readable event of a call and its entry; `None` if there is no such call. `Err` is (code, message).
pub(super) async fn look_up(call: &CallId, hub: &Hub) -> Result<Option<(Seq, Entry)>, (ErrorCode, String)> {
    let unavailable = |error: JournalError| (ErrorCode::JournalUnavailable, format!("call {call}: {error}"));
    let head = match hub.journal().head(call).await {
        Ok(head) => head,
        Err(JournalError::Damaged { after, .. }) => after,
        Err(JournalError::UnknownCall) => return Ok(None),
        Err(error) => return Err(unavailable(error)),
    };
    // After the head, so that the reader gets every event that changes the entry from now on.
    let entry = hub.journal().entry(call).await.map_err(unavailable)?;
    Ok(entry.map(|entry| (head, entry)))
}

/// Whether a call of which `entry` and `head` are known can be read on from (epoch, seq).
pub(super) async fn is_met((epoch, seq): &(String, Seq), entry: &Entry, head: Seq, hub: &Hub) -> bool {
    *epoch == entry.epoch && *seq <= head && hub.journal().read(&entry.call_id, *seq, 1).await.is_ok()
}

/// That there is no such call, and which there are.
pub(super) async fn unknown(call: &CallId, hub: &Hub) -> String {
    const SHOWN: usize = 5;
    let open = hub.journal().page(Some(CallState::Open), None, SHOWN + 1).await.unwrap_or_default();
    let mut names: Vec<&str> = open.iter().map(|entry| entry.call_id.as_str()).take(SHOWN).collect();
    if open.len() > SHOWN {
        names.push("…");
    }
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    format!("no call '{call}'; with \"wait\": true it need not exist yet; open calls: {names}")
}

/// Whether the call matches `wanted` by the `meta` that is looked up.
///
/// # Errors
/// `Unavailable`: it can be looked up again.
pub(super) async fn matches(call: CallId, lookup: Lookup, wanted: JsonMap, hub: Hub) -> Result<bool, HubError> {
    let meta = match lookup {
        Lookup::Meta => hub.journal().entry(&call).await.map(|entry| entry.map(|entry| entry.meta)),
        Lookup::MetaBefore(seq) => meta_before(&call, seq, &hub).await,
    };
    match meta {
        Ok(meta) => Ok(meta.is_some_and(|meta| contains(&meta, &wanted))),
        Err(JournalError::Unavailable(message)) => Err(HubError::Unavailable(message)),
        // What is gone matches nothing any more.
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
        // A long log is read beside the other work of this thread.
        tokio::task::yield_now().await;
    }
    Ok(meta)
}
