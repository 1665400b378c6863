//! The scope of a subscription to named calls, with one position in each call.
//!
//! The reader reads a call from its snapshot on, or from the position where it is resumed. As long as its snapshot is
//! owed, the call is not read.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;

use super::lookup::{is_met, look_up, unknown};
use super::pager::Owed;
use crate::hub::{Frame, Hub, Interest, Reader, Wants, contains};
use crate::protocol::ErrorCode;
use crate::protocol::event::Kind;
use crate::protocol::subscribe::SubscribedCall;
use crate::types::view::View;
use crate::types::{CallId, JsonMap, Seq};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The call does not exist yet.
    Absent,
    /// The call's `meta` does not match.
    Outside,
    /// The call's snapshot is owed.
    Joining,
    /// The call's events are sent.
    Following,
}

/// A new list, its reader, and what `subscribed` says of each call.
pub(super) type Opened = (NamedCalls, Reader, Vec<(CallId, SubscribedCall)>);

/// A subscription to named calls.
pub(super) struct NamedCalls {
    calls: HashMap<CallId, Standing>,
    owed: VecDeque<CallId>,
}

impl NamedCalls {
    /// Looks every call up. `Err` is (code, message); then no subscription was made.
    pub(super) async fn open(
        calls: Vec<CallId>,
        resume: &HashMap<CallId, (String, Seq)>,
        wanted: &JsonMap,
        wait: bool,
        hub: &Hub,
        (wants, notify): (Wants, &Arc<Notify>),
    ) -> Result<Opened, (ErrorCode, String)> {
        let mut list = Self { calls: HashMap::with_capacity(calls.len()), owed: VecDeque::new() };
        let mut positions = Vec::new();
        let mut replies = Vec::new();
        for call in calls {
            let Some((head, entry)) = look_up(&call, hub).await? else {
                if !wait {
                    return Err((ErrorCode::UnknownCall, unknown(&call, hub).await));
                }
                positions.push((call.clone(), 0));
                replies.push((call.clone(), SubscribedCall { epoch: None, seq: 0, recovered: false }));
                list.calls.insert(call, Standing::Absent);
                continue;
            };
            if !contains(&entry.meta, wanted) {
                positions.push((call.clone(), head));
                list.calls.insert(call, Standing::Outside);
                continue;
            }
            let resumed = match resume.get(&call) {
                Some(position) => is_met(position, &entry, head, hub).await.then_some(position.1),
                None => None,
            };
            let standing = match resumed {
                Some(seq) => {
                    positions.push((call.clone(), seq));
                    Standing::Following
                }
                None => {
                    list.owed.push_back(call.clone());
                    Standing::Joining
                }
            };
            replies.push((
                call.clone(),
                SubscribedCall { epoch: Some(entry.epoch), seq: head, recovered: standing == Standing::Following },
            ));
            list.calls.insert(call, standing);
        }
        let reader = hub.reader_with(Interest::Calls(positions), wants, Arc::clone(notify));
        Ok((list, reader, replies))
    }

    /// Returns true if the event is to be sent.
    pub(super) fn admit(&mut self, frame: &Frame, wanted: &JsonMap, reader: &mut Reader) -> bool {
        let Some(standing) = self.calls.get_mut(frame.call()) else { return false };
        match *standing {
            Standing::Following => {
                // Sends the `call.updated` that ends the match, and nothing after it.
                if !wanted.is_empty() && matches_now(frame, wanted) == Some(false) {
                    *standing = Standing::Outside;
                }
                true
            }
            Standing::Absent => {
                let matches = matches_now(frame, wanted).unwrap_or(true);
                *standing = if matches { Standing::Following } else { Standing::Outside };
                matches
            }
            Standing::Outside => {
                if matches_now(frame, wanted) == Some(true) {
                    *standing = Standing::Joining;
                    self.owed.push_back(frame.call().clone());
                    reader.remove(frame.call());
                }
                false
            }
            Standing::Joining => false,
        }
    }

    /// Returns true if live frames of the call are to be sent.
    pub(super) fn follows(&self, call: &CallId) -> bool {
        self.calls.get(call) == Some(&Standing::Following)
    }

    /// The next call whose snapshot is owed.
    pub(super) fn next_view(&mut self) -> Option<Owed> {
        Some(Owed { call: self.owed.pop_front()?, with_newest: false })
    }

    /// Records that the call's snapshot is still owed.
    pub(super) fn owe_again(&mut self, call: CallId) {
        self.owed.push_front(call);
    }

    /// Takes the view of a call; returns true if its snapshot is to be sent.
    pub(super) fn viewed(&mut self, call: &CallId, view: Option<&View>, wanted: &JsonMap, reader: &mut Reader) -> bool {
        let standing = match view {
            None => Standing::Absent,
            Some(view) if contains(&view.meta, wanted) => Standing::Following,
            Some(_) => Standing::Outside,
        };
        self.calls.insert(call.clone(), standing);
        reader.add(call, view.map_or(0, |view| view.seq));
        standing == Standing::Following
    }
}

/// Returns true if the `meta` in the event matches; `None` if the event carries no `meta`.
pub(super) fn matches_now(frame: &Frame, wanted: &JsonMap) -> Option<bool> {
    if !matches!(frame.kind(), Kind::CallStarted | Kind::CallUpdated) {
        return None;
    }
    Some(wanted.is_empty() || frame.meta().is_some_and(|meta| contains(&meta, wanted)))
}
