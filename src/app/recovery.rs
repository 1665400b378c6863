//! After a start: open calls that nobody touches are taken up when a timer of theirs is due, and not before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::drain::Drain;
use crate::call::config::IngestConfig;
use crate::journal::Store;
use crate::session::Sessions;
use crate::types::CallId;

/// Calls that are taken up in one go; a pause between lets live calls through.
const AT_ONCE: usize = 64;
const PAUSE: Duration = Duration::from_millis(5);

/// Wait before open calls that cannot be listed are listed again.
const RETRY: Duration = Duration::from_secs(1);

/// Waits for the timers of the calls that were open at the start. Their clocks run anew.
pub(super) async fn run(sessions: Sessions, store: Arc<dyn Store>, ingest: IngestConfig, drain: Drain) {
    let started = Instant::now();
    let mut due: BTreeMap<Duration, Vec<CallId>> = BTreeMap::new();
    let open = loop {
        match store.open_calls().await {
            Ok(open) => break open,
            Err(error) => tracing::error!(%error, "the open calls cannot be listed; trying again"),
        }
        tokio::select! {
            () = drain.stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    };
    for entry in open {
        let ended = entry.open_streams == 0 && entry.turns > 0;
        due.entry(if ended { ingest.linger } else { ingest.idle_timeout }).or_default().push(entry.call_id);
    }
    let open: usize = due.values().map(Vec::len).sum();
    if open > 0 {
        tracing::info!(open, "open calls go on; each is rebuilt when it is touched or a timer of it is due");
    }
    for (after, calls) in due {
        tokio::select! {
            biased;
            () = drain.stop.cancelled() => return,
            () = tokio::time::sleep_until(started + after) => {}
        }
        for batch in calls.chunks(AT_ONCE) {
            if drain.stopping() {
                return;
            }
            for call in batch {
                sessions.wake_overdue(call).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
