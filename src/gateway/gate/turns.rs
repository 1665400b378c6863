//! The requests that wait at a gate, and whose turn it is: parties take turns, and the requests of one party keep their
//! order.
//!
//! Knows no limits and no clock: it asks its caller whether a request may go.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Cause, Party, Permit, Refusal};
use crate::gateway::rate::{Need, Told};

/// All waiting requests.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The parties in the order of their turns.
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

    /// Refuses the newest request of the party that has most of them. Returns false, and refuses none, if that party
    /// does not have at least two more than `party`.
    pub(super) fn make_room(&mut self, party: &Party) -> bool {
        let own = self.waiting.get(party).map_or(0, VecDeque::len);
        let longest = self.waiting.values_mut().max_by_key(|waiters| waiters.len());
        let Some(waiters) = longest.filter(|waiters| waiters.len() > own + 1) else { return false };
        // Dropping its sender tells the waiter; the waiter removes itself from the counts.
        drop(waiters.pop_back());
        true
    }

    /// Adds a request of a party. Returns the ticket with which it leaves, and the channel that delivers its permit;
    /// the channel closes without a permit if the request is refused.
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

    /// Removes a request if it still waits, and its party if that was its last request.
    pub(super) fn leave(&mut self, party: &Party, ticket: u64) {
        if let Some(waiters) = self.waiting.get_mut(party) {
            waiters.retain(|waiter| waiter.ticket != ticket);
            if waiters.is_empty() {
                self.waiting.remove(party);
                self.order.retain(|other| other != party);
            }
        }
    }

    /// Calls `take` for the requests in turn until it refuses one; returns those that got a permit. A request that is
    /// refused because of its vendor's limits blocks only its own model: requests for other models may pass it,
    /// requests for the same model may not.
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

    /// Number of parties that have a turn, and number of parties that have requests: always equal.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.order.len(), self.waiting.len())
    }
}
