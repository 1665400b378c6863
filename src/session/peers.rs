//! The peers that wait for answers of one call: its producers' sockets, and requests of readers.
//!
//! Knows numbers, not streams: the call addresses an answer by the number that its peer was given.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::command::{Attached, Outlet, RunRefusal, TurnReply};
use crate::call::effects::{Reply, Tell};
use crate::call::numbers::PeerNo;
use crate::types::Seq;
use crate::types::view::View;

/// A request of a reader.
pub(super) enum Ask {
    /// For the present state of the call.
    View(oneshot::Sender<Arc<View>>),
    /// For a run of an analysis.
    Run(oneshot::Sender<Result<Seq, RunRefusal>>),
}

struct Producer {
    outlet: Arc<Outlet>,
    /// Receives the answers about its turns, if it asks a question about them.
    replies: Option<mpsc::Sender<TurnReply>>,
    /// Receives the answer whether it may feed its stream; `None` afterwards.
    reply: Option<oneshot::Sender<Attached>>,
}

/// All peers of one call. A producer is removed once it is refused or gone, a request once it is answered.
#[derive(Default)]
pub(super) struct Peers {
    given: PeerNo,
    producers: HashMap<PeerNo, Producer>,
    asks: HashMap<PeerNo, Ask>,
}

impl Peers {
    fn next(&mut self) -> PeerNo {
        self.given += 1;
        self.given
    }

    /// Adds a producer that wants to feed a stream.
    pub(super) fn producer(
        &mut self,
        outlet: Arc<Outlet>,
        replies: Option<mpsc::Sender<TurnReply>>,
        reply: oneshot::Sender<Attached>,
    ) -> PeerNo {
        let peer = self.next();
        self.producers.insert(peer, Producer { outlet, replies, reply: Some(reply) });
        peer
    }

    /// Adds a request.
    pub(super) fn ask(&mut self, ask: Ask) -> PeerNo {
        let peer = self.next();
        self.asks.insert(peer, ask);
        peer
    }

    /// Asks every producer that feeds a stream to reconnect. The others have no answer yet, and will try again by
    /// themselves.
    pub(super) fn reconnect(&self, reason: &'static str) {
        for producer in self.producers.values().filter(|producer| producer.reply.is_none()) {
            producer.outlet.reconnect(reason);
        }
    }

    /// Sends a message that waits for no record.
    pub(super) fn tell(&mut self, tell: Tell) {
        match tell {
            Tell::Error(peer, error) => {
                if let Some(producer) = self.producers.get(&peer) {
                    producer.outlet.report_error(error);
                }
            }
            Tell::Close(peer, close) => {
                if let Some(producer) = self.producers.get(&peer) {
                    producer.outlet.close(close);
                }
            }
            Tell::Reply(peer, reply) => {
                // The channel has room for an answer to every turn that may be open; without room, nobody waits for
                // this one.
                if let Some(replies) = self.producers.get(&peer).and_then(|producer| producer.replies.as_ref()) {
                    drop(replies.try_send(reply));
                }
            }
            Tell::Refuse(peer, refusal) => {
                // The asker may be gone, here and below.
                if let Some(Ask::Run(reply)) = self.asks.remove(&peer) {
                    drop(reply.send(Err(refusal)));
                }
            }
        }
    }

    /// Sends an answer that waited until its records were durable.
    pub(super) fn reply(&mut self, reply: Reply) {
        match reply {
            Reply::Ack(peer, ack) => {
                if let Some(producer) = self.producers.get(&peer) {
                    producer.outlet.ack(ack);
                }
            }
            Reply::Attached(peer, attached) => {
                let refused = !matches!(attached, Attached::Welcome(_));
                if let Some(reply) = self.producers.get_mut(&peer).and_then(|producer| producer.reply.take()) {
                    drop(reply.send(attached));
                }
                if refused {
                    self.producers.remove(&peer);
                }
            }
            Reply::Gone(peer) => drop(self.producers.remove(&peer)),
            Reply::View(peer, view) => {
                if let Some(Ask::View(reply)) = self.asks.remove(&peer) {
                    drop(reply.send(view));
                }
            }
            Reply::Run(peer, head) => {
                if let Some(Ask::Run(reply)) = self.asks.remove(&peer) {
                    drop(reply.send(Ok(head)));
                }
            }
        }
    }
}
