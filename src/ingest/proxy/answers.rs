//! The answers that a proxied session owes to its client (`llm_gateway`): one for each turn, or the reason why there is
//! none.
//!
//! Knows no socket and asks no model: turns are sent to the call together with the vendor's frames, and the call
//! returns the answers.

use tokio::sync::mpsc;

use super::Metrics;
use super::questions::Questions;
use super::response::{answer, failure, response};
use crate::analysis::Spoken;
use crate::base::ws::Utf8Bytes;
use crate::protocol::FailureCode;
use crate::session::command::{Failed, OPEN_TURNS, TurnReply};

/// The answers of one session.
pub(super) struct Answers {
    pub(super) questions: Questions,
    /// Answers from the call.
    pub(super) replies: mpsc::Receiver<TurnReply>,
    /// Set if the question is invalid; the reason.
    pub(super) wrong: Option<String>,
    pub(super) metrics: Metrics,
}

impl Answers {
    /// The turns of a frame that the call is to answer, and the answers for turns that it is not to answer. `last`:
    /// this is the session's last frame.
    pub(super) fn see(&mut self, frame: &str, last: bool) -> (Vec<Spoken>, Vec<Utf8Bytes>) {
        let (mut asks, mut refused) = (Vec::new(), Vec::new());
        for turn in self.questions.see(frame, last) {
            if let Some(wrong) = &self.wrong {
                let failed = Failed { code: FailureCode::BadLlmGateway, message: wrong.clone(), temporary: false };
                refused.push(self.refuse(turn.turn_order, &turn.text, &failed));
            } else if self.questions.open(&turn) {
                asks.push(turn);
            } else {
                let message = format!("{OPEN_TURNS} turns of this stream already wait for an answer");
                let failed = Failed { code: FailureCode::Overloaded, message, temporary: true };
                refused.push(self.refuse(turn.turn_order, &turn.text, &failed));
            }
        }
        (asks, refused)
    }

    /// The answers for turns that could not be sent because the call is too far behind.
    pub(super) fn not_taken(&mut self, turns: Vec<Spoken>) -> Vec<Utf8Bytes> {
        let message = "the call is too far behind to accept more turns now".to_owned();
        let failed = Failed { code: FailureCode::Overloaded, message, temporary: true };
        let refuse = |turn: Spoken| {
            self.questions.answered(turn.turn_order);
            self.refuse(turn.turn_order, &turn.text, &failed)
        };
        turns.into_iter().map(refuse).collect()
    }

    /// Waits for the next answer; never ends if no more come.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn next(&mut self) -> TurnReply {
        match self.replies.recv().await {
            Some(reply) => reply,
            None => std::future::pending().await,
        }
    }

    /// The frame of an answer, if its turn still waits for one.
    pub(super) fn take(&mut self, reply: TurnReply) -> Option<Utf8Bytes> {
        let TurnReply { turn_order, result } = reply;
        let transcript = self.questions.answered(turn_order)?;
        Some(match result {
            Ok(replied) => {
                self.metrics.answers.inc();
                response(turn_order, &transcript, &answer(&replied))
            }
            Err(failed) => self.refuse(turn_order, &transcript, &failed),
        })
    }

    /// Returns true if every turn has its answer.
    pub(super) fn are_complete(&self) -> bool {
        self.questions.are_answered()
    }

    /// Failures for the turns whose answer did not come in time.
    pub(super) fn give_up(&mut self) -> Vec<Utf8Bytes> {
        let message = "the session ended before the answer came".to_owned();
        let failed = Failed { code: FailureCode::Timeout, message, temporary: true };
        let late = self.questions.give_up().into_iter();
        late.map(|(order, transcript)| self.refuse(order, &transcript, &failed)).collect()
    }

    fn refuse(&self, turn_order: i64, transcript: &str, failed: &Failed) -> Utf8Bytes {
        self.metrics.failed_answers.inc();
        response(turn_order, transcript, &failure(failed))
    }
}
