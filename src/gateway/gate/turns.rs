//! Who waits at a gate, and whose turn it is: parties take turns, the requests of one party go in their order.
//!
//! Knows no limits and no clock: whether a request may go, it asks.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Cause, Party, Permit, Refusal};
use crate::gateway::rate::{Need, Told};

/// All who wait.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Whose turn it is next.
    order: VecDeque<Party>,
    waiting: HashMap<Party, VecDeque<Waiter>>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    need: Need,
    told: Arc<Told>,
    grant: oneshot::Sender<Permit>,
}

impl Turns {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Sends away the newest request of the party that has most of them; `false`: `party` itself would then have no fewer.
    pub(super) fn make_room(&mut self, party: &Party) -> bool {
        let own = self.waiting.get(party).map_or(0, VecDeque::len);
        let longest = self.waiting.values_mut().max_by_key(|waiters| waiters.len());
        let Some(waiters) = longest.filter(|waiters| waiters.len() > own + 1) else { return false };
        // Dropping its sender tells it; it leaves the counts by itself.
        drop(waiters.pop_back());
        true
    }

    /// Adds a request of a party; gives the ticket by which it leaves, and where its permit comes, or word that it was
    /// sent away.
    pub(super) fn join(&mut self, party: &Party, told: &Arc<Told>, need: Need) -> (u64, oneshot::Receiver<Permit>) {
        let (grant, granted) = oneshot::channel();
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let waiter = Waiter { ticket, need, told: Arc::clone(told), grant };
        if !self.waiting.contains_key(party) {
            self.order.push_back(party.clone());
        }
        self.waiting.entry(party.clone()).or_default().push_back(waiter);
        (ticket, granted)
    }

    /// A request waits no more, if it still did; nor does its party, if it was its last.
    pub(super) fn leave(&mut self, party: &Party, ticket: u64) {
        if let Some(waiters) = self.waiting.get_mut(party) {
            waiters.retain(|waiter| waiter.ticket != ticket);
            if waiters.is_empty() {
                self.waiting.remove(party);
                self.order.retain(|other| other != party);
            }
        }
    }

    /// Asks `take` for those whose turn it is until it refuses one; gives who got a permit. One that is refused for its
    /// vendor's sake holds up its own model only: others may pass it, nobody may pass within one.
    pub(super) fn serve(
        &mut self,
        mut take: impl FnMut(&Arc<Told>, Need) -> Result<Permit, Refusal>,
    ) -> Vec<(oneshot::Sender<Permit>, Permit)> {
        let mut granted = Vec::new();
        let mut held: Vec<Arc<Told>> = Vec::new();
        let mut position = 0;
        while let Some(party) = self.order.get(position).cloned() {
            let Some((told, need)) = self.head(&party) else {
                self.order.remove(position);
                self.waiting.remove(&party);
                continue;
            };
            if held.iter().any(|other| Arc::ptr_eq(other, &told)) {
                position += 1;
                continue;
            }
            match take(&told, need) {
                Ok(permit) => {
                    if let Some(waiter) = self.waiting.get_mut(&party).and_then(VecDeque::pop_front) {
                        granted.push((waiter.grant, permit));
                    }
                    self.order.remove(position);
                    self.order.push_back(party);
                }
                Err(Refusal { cause: Cause::Vendor, .. }) => {
                    held.push(told);
                    position += 1;
                }
                Err(_) => break,
            }
        }
        granted
    }

    fn head(&self, party: &Party) -> Option<(Arc<Told>, Need)> {
        let waiter = self.waiting.get(party)?.front()?;
        Some((Arc::clone(&waiter.told), waiter.need))
    }

    /// How many parties have a turn, and how many have requests: never different.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.order.len(), self.waiting.len())
    }
}
