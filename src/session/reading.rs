//! Shows calls: by their sessions, if those can answer at once, otherwise from their logs. A call is never rebuilt for
//! this. Everything shown is durable, whether or not the journal accepts appends. Logs are read in pieces, and decoded
//! on threads that serve no clients.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, oneshot};

use super::command::Command;
use super::error::SessionError;
use super::index::{self, Index, insights_at, off_thread, turns_at};
use super::registry::{Sessions, TRIES};
use crate::base::time;
use crate::call::outline::Outline;
use crate::journal::{CallState as State, Entry, JournalError};
use crate::types::view::View;
use crate::types::{CallId, Turn, TurnNo};

/// Bytes of turns that are read before other tasks run.
const TURNS_BYTES: usize = 4 * 1024 * 1024;

/// Interval at which a reader checks whether the journal accepts appends.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Sessions {
    /// The present state of the call with all of its turns: from its task if it is in memory, otherwise from its log.
    /// `None` if the call does not exist.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn view(&self, call: &CallId) -> Result<Option<Arc<View>>, SessionError> {
        match self.asked(call).await {
            Some(view) => Ok(Some(view)),
            None => self.whole(call).await,
        }
    }

    /// As [`Sessions::view`], with at least this many of its newest turns.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn snapshot(&self, call: &CallId, newest_turns: usize) -> Result<Option<Arc<View>>, SessionError> {
        match self.asked(call).await {
            Some(view) => Ok(Some(view)),
            None => Ok(self.shown(call, newest_turns).await?.map(Arc::new)),
        }
    }

    /// The state of the call from its task. `None` if it has no task, or if the task may have to wait for a journal
    /// that accepts no appends.
    async fn asked(&self, call: &CallId) -> Option<Arc<View>> {
        tokio::select! {
            biased;
            view = self.ask(call) => view,
            () = self.journal_fails() => None,
        }
    }

    async fn ask(&self, call: &CallId) -> Option<Arc<View>> {
        for _ in 0..TRIES {
            let sender = self.queue(call)?;
            let (reply, answer) = oneshot::channel();
            if sender.send(Command::View(reply)).await.is_ok()
                && let Ok(view) = answer.await
            {
                return Some(view);
            }
            tokio::task::yield_now().await;
        }
        None
    }

    async fn journal_fails(&self) {
        while self.deps().store.health().is_ok() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The state of the call from its log, with this many of its newest turns. `None` if the call does not exist.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn shown(&self, call: &CallId, newest_turns: usize) -> Result<Option<View>, SessionError> {
        let look = move |index: &Index| {
            let from = index.outline.turns.saturating_sub(newest_turns as u64);
            let places = match newest_turns {
                0 => Vec::new(),
                _ => index.places((from, TurnNo::MAX), newest_turns).0,
            };
            (index.outline.clone(), places, index.damaged)
        };
        let Some((entry, (outline, places, damaged))) = self.look(call, newest_turns > 0, look).await? else {
            return Ok(None);
        };
        let store = self.deps().store.as_ref();
        let (turns, _) = turns_at(store, call, &places, usize::MAX).await?;
        let insights = insights_at(store, call, outline.insights).await?;
        let status = match (entry.state, outline.ended) {
            _ if damaged => State::Failed,
            (State::Open, Some(ended)) => ended,
            (known, _) => known,
        };
        Ok(Some(View {
            call_id: call.clone(),
            epoch: entry.epoch,
            seq: outline.seq,
            status: status.as_str(),
            started_at: time::rfc3339_ms(entry.started_at_ms),
            meta: outline.meta.unwrap_or(entry.meta),
            turn_count: outline.turns,
            turns,
            streams: outline.streams,
            insights,
            alerts: outline.alerts,
        }))
    }

    /// Turns from the call's log, in order from `from` to `to` inclusive: at most `limit`, about `max_bytes` of them,
    /// at least one if there is one. Also returns whether more would follow. `None` if the call does not exist.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn turns(
        &self,
        call: &CallId,
        (from, to): (TurnNo, TurnNo),
        limit: usize,
        max_bytes: usize,
    ) -> Result<Option<(Vec<Arc<Turn>>, bool)>, SessionError> {
        let look = move |index: &Index| index.places((from, to), limit);
        let Some((_, (places, more))) = self.look(call, true, look).await? else { return Ok(None) };
        let (turns, left_out) = turns_at(self.deps().store.as_ref(), call, &places, max_bytes).await?;
        Ok(Some((turns, more || left_out)))
    }

    /// The call with all of its turns, from its log.
    pub(super) async fn whole(&self, call: &CallId) -> Result<Option<Arc<View>>, SessionError> {
        let Some(mut view) = self.shown(call, 0).await? else { return Ok(None) };
        loop {
            let from = view.turns.last().map_or(0, |turn| turn.turn + 1);
            let Some((turns, more)) = self.turns(call, (from, TurnNo::MAX), usize::MAX, TURNS_BYTES).await? else {
                return Ok(None);
            };
            view.turns.extend(turns);
            if !more {
                view.turn_count = view.turns.len() as u64;
                return Ok(Some(Arc::new(view)));
            }
        }
    }

    /// Extends the index of the call's log up to its head, then calls `look` with it. `None` if the call does not
    /// exist.
    async fn look<T>(
        &self,
        call: &CallId,
        turns: bool,
        look: impl FnOnce(&Index) -> T,
    ) -> Result<Option<(Entry, T)>, SessionError> {
        let store = Arc::clone(&self.deps().store);
        let Some(entry) = store.entry(call).await? else { return Ok(None) };
        let library = self.library();
        // Of an ended call, the directory has everything but its turns.
        let outline = entry.outline.as_deref().filter(|_| !turns).and_then(Outline::decode);
        let known = outline.is_none();
        let index = match outline {
            Some(outline) => Arc::new(AsyncMutex::new(Index::without_turns(outline))),
            None => library.index(&entry),
        };
        // Each log has one reader at a time, whose index the next one uses. This lock protects nothing else.
        let mut index = index.lock_owned().await;
        loop {
            let permit = library.permit().await;
            let read = store.read(call, index.outline.seq, index::PIECE_BYTES).await;
            let more;
            if matches!(&read, Ok(records) if records.is_empty()) {
                more = Ok(false);
            } else {
                (index, more) = off_thread(move || {
                    let more = index.extend(read);
                    (index, more)
                })
                .await?;
            }
            drop(permit);
            match more {
                Ok(true) => {}
                Ok(false) => {
                    if known {
                        library.note(call, index.bytes());
                    }
                    let looked = look(&index);
                    return Ok((index.outline.seq > 0).then_some((entry, looked)));
                }
                Err(JournalError::UnknownCall) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
