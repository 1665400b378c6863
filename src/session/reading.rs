//! Calls as they are shown: by their sessions, where those can answer at once, else by their logs. Nothing is rebuilt for
//! it; what is read is durable, whether the journal takes appends or not; files are read off the serving threads, in
//! pieces.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::task::spawn_blocking;

use super::command::Command;
use super::index::Index;
use super::registry::{SessionError, Sessions, TRIES};
use crate::base::time;
use crate::call::outline::Outline;
use crate::journal::{CallState as State, Entry, JournalError, Store};
use crate::types::view::View;
use crate::types::{CallId, Turn, TurnNo};

/// Bytes of turns read before others have their turn.
const TURNS_BYTES: usize = 4 * 1024 * 1024;

/// How soon a reader notices that the journal takes no appends.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Sessions {
    /// The call as it stands with all of its turns, from its task if it is resident, else from its log. `None` where there
    /// is no such call.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn view(&self, call: &CallId) -> Result<Option<Arc<View>>, SessionError> {
        match self.asked(call).await {
            Some(view) => Ok(Some(view)),
            None => self.whole(call).await,
        }
    }

    /// The same with so many of its newest turns at least.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn snapshot(&self, call: &CallId, newest_turns: usize) -> Result<Option<Arc<View>>, SessionError> {
        match self.asked(call).await {
            Some(view) => Ok(Some(view)),
            None => Ok(self.shown(call, newest_turns).await?.map(Arc::new)),
        }
    }

    /// The call as its task has it. `None` where it has none, or where that may have to wait for a journal that takes no
    /// appends.
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

    /// The call as it stands in its log, with so many of its newest turns. `None` where there is no such call.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn shown(&self, call: &CallId, newest_turns: usize) -> Result<Option<View>, SessionError> {
        self.read(call, newest_turns > 0, move |store, entry, index| {
            let call = &entry.call_id;
            let outline = &index.outline;
            let from = outline.turns.saturating_sub(newest_turns as u64);
            let (turns, _) = match newest_turns {
                0 => Default::default(),
                _ => index.page(store, call, (from, TurnNo::MAX), newest_turns, usize::MAX)?,
            };
            let status = match (entry.state, outline.ended) {
                _ if index.damaged => State::Failed,
                (State::Open, Some(ended)) => ended,
                (known, _) => known,
            };
            Ok(View {
                call_id: call.clone(),
                epoch: entry.epoch.clone(),
                seq: outline.seq,
                status: status.as_str(),
                started_at: time::rfc3339_ms(entry.started_at_ms),
                meta: outline.meta.clone().unwrap_or_else(|| entry.meta.clone()),
                turn_count: outline.turns,
                turns,
                streams: outline.streams.clone(),
                insights: index.insights(store, call)?,
            })
        })
        .await
    }

    /// Turns as they stand in the call's log, in order from `from` up to and with `to`: at most `limit`, of about
    /// `max_bytes`, at least one where there is one. And whether more would follow. `None` where there is no such call.
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
        let page = move |store: &dyn Store, entry: &Entry, index: &Index| {
            index.page(store, &entry.call_id, (from, to), limit, max_bytes)
        };
        self.read(call, true, page).await
    }

    /// Has the journal look at the call's log, if it was not touched yet: that reads all of it.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn touch(&self, call: &CallId) -> Result<(), SessionError> {
        let (store, call) = (Arc::clone(&self.deps().store), call.clone());
        let touched = spawn_blocking(move || store.head(&call)).await;
        match touched {
            Ok(Ok(_) | Err(JournalError::Damaged { .. })) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(SessionError::Stopping),
        }
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

    /// Reads on in the call's log up to its head, then does `work` with what is known.
    async fn read<T: Send + 'static>(
        &self,
        call: &CallId,
        turns: bool,
        work: impl FnOnce(&dyn Store, &Entry, &Index) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<Option<T>, SessionError> {
        let store = Arc::clone(&self.deps().store);
        let Some(entry) = store.entry(call) else { return Ok(None) };
        let library = self.library();
        // Of a call that is over, the directory has all but its turns.
        let outline = entry.outline.as_deref().filter(|_| !turns).and_then(Outline::decode);
        let known = outline.is_none();
        let index = match outline {
            Some(outline) => Arc::new(AsyncMutex::new(Index::without_turns(outline))),
            None => library.index(&entry),
        };
        let mut index = index.lock_owned().await;
        let (mut entry, mut work) = (entry, Some(work));
        loop {
            let permit = library.permit().await;
            let store = Arc::clone(&store);
            let piece = spawn_blocking(move || {
                let done = index.extend(store.as_ref(), &entry.call_id).and_then(|more| match work.take() {
                    Some(work) if !more => work(store.as_ref(), &entry, &index).map(Some),
                    kept => {
                        work = kept;
                        Ok(None)
                    }
                });
                (index, entry, work, done)
            });
            let done = match piece.await {
                Ok(piece) => {
                    let done;
                    (index, entry, work, done) = piece;
                    done
                }
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                Err(_) => return Err(SessionError::Stopping),
            };
            drop(permit);
            match done {
                Ok(None) => {}
                Ok(Some(found)) => {
                    if known {
                        library.note(call, index.bytes());
                    }
                    return Ok((index.outline.seq > 0).then_some(found));
                }
                Err(JournalError::UnknownCall) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
