//! Questions that producers ask about their own turns (`llm_gateway`): one answer per turn, to the connection that
//! asked.
//!
//! Publishes nothing and stores nothing: a connection that is gone gets no answers, and they do not survive a crash of
//! the daemon. The code that reads the vendor's frames decides which turns are answered.

use std::sync::Arc;

use super::Call;
use super::answer::{Failed, Replied, TurnReply};
use super::effects::Tell;
use super::numbers::ConnectionNo;
use super::producers::{Live, Replies};
use super::schedule::OPEN_TURNS;
use super::task::{Asking, Asks, Chosen, ReplyKey, Run, Start, Target, TaskNo};
use crate::analysis::{Facts, Question, Spoken};
use crate::base::tokens::Fit;
use crate::context::{DEFAULT_BUDGET_TOKENS, Snapshot};
use crate::protocol::FailureCode;
use crate::types::{Insight, JsonMap, StreamId};

/// The analysis whose newest insight is the call's summary.
const SUMMARY: &str = "summary";

impl Call {
    /// Queues turns of the producer of `root` to be answered. A turn that already waits for its answer is not queued
    /// again.
    pub(super) fn turns_asked(&mut self, root: &StreamId, asks: &[Spoken]) {
        let Some(live) = self.producers.live.get_mut(root) else { return };
        let Some(replies) = &mut live.replies else { return };
        for spoken in asks {
            if replies.open.contains_key(&spoken.turn_order) {
                continue;
            }
            if replies.queue.push(spoken.turn_order) {
                replies.open.insert(spoken.turn_order, spoken.clone());
                continue;
            }
            let message = format!("{OPEN_TURNS} turns of this stream already wait for an answer");
            let failed = Failed { code: FailureCode::Overloaded, message, temporary: true };
            let reply = TurnReply { turn_order: spoken.turn_order, result: Err(failed) };
            self.effects.tells.push(Tell::Reply(live.peer, reply));
        }
    }

    /// Requests the tasks of the turns that are next.
    pub(super) fn launch_replies(&mut self) {
        let mut wanted = Vec::new();
        for live in self.producers.live.values_mut() {
            let Some(replies) = &mut live.replies else { continue };
            while let Some(turn_order) = replies.queue.next() {
                wanted.push(ReplyKey { connection: live.connection, turn_order });
            }
        }
        wanted.sort_unstable();
        for key in wanted {
            self.want(Target::Reply(key));
        }
    }

    fn asker(&self, connection: ConnectionNo) -> Option<&Live> {
        self.producers.live.values().find(|live| live.connection == connection)
    }

    /// The question that a connection asks.
    pub(super) fn question(&self, key: ReplyKey) -> Option<&Question> {
        self.asker(key.connection)?.replies.as_ref().map(Replies::question)
    }

    /// Takes the snapshot and starts the task, which has its permit.
    pub(super) fn reply_ready(&mut self, no: TaskNo, key: ReplyKey, chosen: Result<Chosen, Failed>) {
        let fit = match chosen {
            Ok(chosen) => chosen.fit,
            Err(failed) => {
                self.tasks.out.remove(&no);
                return self.reply(key, Err(failed));
            }
        };
        let asked = self.asker(key.connection).and_then(|live| {
            let replies = live.replies.as_ref()?;
            let spoken = replies.open.get(&key.turn_order)?.clone();
            Some((live.current.clone(), Arc::clone(&replies.question), spoken))
        });
        let Some((stream, question, spoken)) = asked else {
            self.tasks.out.remove(&no);
            return;
        };
        let snapshot = self.reply_snapshot(&stream, &question, &spoken, fit);
        let summary = if question.wants_summary() { self.newest_summary() } else { None };
        let facts = Facts {
            call_id: self.log.call_id.clone(),
            meta: self.log.meta.clone(),
            speakers: JsonMap::new(),
            turn: None,
        };
        if let Some(out) = self.tasks.out.get_mut(&no) {
            out.run = Some(Run::Reply);
        }
        let asks = Asks::Reply(Box::new(Asking { question, spoken, summary }));
        self.effects.start = Some(Box::new(Start { no, asks, snapshot, facts, last: false, deadline: None }));
    }

    /// The turn as the call has it, and the speech before it if the question includes that.
    fn reply_snapshot(&self, stream: &StreamId, question: &Question, spoken: &Spoken, fit: Fit) -> Snapshot {
        let vendor_turn = spoken.turn_order.to_string();
        let mut newest_first = self.log.turns.iter().rev();
        let known = newest_first
            .find(|turn| turn.stream_id == *stream && turn.vendor_turn.as_deref() == Some(vendor_turn.as_str()));
        // A turn that the call did not accept is not shown, but the speech before it is.
        let turn = known.or_else(|| self.log.turns.iter().next_back()).map_or(0, |turn| turn.turn);
        let before = if question.wants_transcript() { usize::MAX } else { 0 };
        self.log.context.snapshot_turn(turn, before, fit.within(DEFAULT_BUDGET_TOKENS))
    }

    fn newest_summary(&self) -> Option<Arc<Insight>> {
        self.log.standings.get(SUMMARY)?.latest.clone()
    }

    /// Handles a task that ended or could not be started.
    pub(super) fn reply(&mut self, key: ReplyKey, result: Result<Replied, Failed>) {
        let live = self.producers.live.values_mut().find(|live| live.connection == key.connection);
        let Some(live) = live else { return };
        let Some(replies) = &mut live.replies else { return };
        replies.queue.over(key.turn_order);
        if replies.open.remove(&key.turn_order).is_some() {
            let reply = TurnReply { turn_order: key.turn_order, result };
            self.effects.tells.push(Tell::Reply(live.peer, reply));
        }
    }

    /// Drops the open turns of a connection that is gone.
    pub(super) fn drop_replies(&mut self, connection: ConnectionNo) {
        self.abort_tasks(|target| matches!(target, Target::Reply(key) if key.connection == connection));
    }
}
