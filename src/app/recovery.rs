//! After a start, loads open calls whose timers are due, if no client has used them before. Other calls stay unloaded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::drain::Drain;
use crate::base::time;
use crate::call::config::IngestConfig;
use crate::journal::Store;
use crate::session::Sessions;
use crate::types::CallId;

/// Number of calls that are loaded without a pause. The pauses let live calls make progress.
const AT_ONCE: usize = 64;
const PAUSE: Duration = Duration::from_millis(5);

/// Wait before the next attempt to list open calls after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Which timer of a call is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// The timer that ends the call. It runs from the start of the daemon.
    End,
    /// The timer of a rule, in wall-clock time.
    Rule,
}

/// Waits for the timers of the calls that were open at the start. All timers begin again at the start, except those of
/// rules.
pub(super) async fn run(sessions: Sessions, store: Arc<dyn Store>, ingest: IngestConfig, drain: Drain) {
    let started = Instant::now();
    let mut due: BTreeMap<Duration, Vec<(CallId, Due)>> = BTreeMap::new();
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
    let (open_calls, now_ms) = (open.len(), time::unix_ms());
    for entry in open {
        let ended = entry.open_streams == 0 && entry.turns > 0;
        let end = if ended { ingest.linger } else { ingest.idle_timeout };
        // An overdue timer is due now; a timer that is due after the call's end does not matter.
        let left = |at_ms: i64| Duration::from_millis(u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(0));
        if let Some(after) = entry.due_at_ms.map(left).filter(|after| *after < end) {
            due.entry(after).or_default().push((entry.call_id.clone(), Due::Rule));
        }
        due.entry(end).or_default().push((entry.call_id, Due::End));
    }
    if open_calls > 0 {
        tracing::info!(
            open = open_calls,
            "open calls continue; each is rebuilt when a client uses it or one of its timers is due"
        );
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
            for (call, due) in batch {
                sessions.wake_due(call, *due == Due::End).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
