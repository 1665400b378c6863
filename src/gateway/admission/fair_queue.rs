//! The requests that wait for an endpoint, in a fair order: the keys take turns, and the requests of one key keep their
//! order.
//!
//! Knows no limits, no clock and no meaning of a permit: its caller decides whether a request may be sent.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::refusal::{Cause, Refusal};
use super::token_estimate::TokenEstimate;
use super::vendor_limits::VendorLimits;
use crate::types::CallId;

/// The key whose requests share one turn: those of one call, otherwise those of one client's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::gateway) enum QueueKey {
    Call(CallId),
    Client(Option<Arc<str>>),
}

/// All waiting requests. `P` is the permit that a request waits for.
#[derive(Debug)]
pub(super) struct FairQueue<P> {
    /// The keys in the order of their turns.
    order: VecDeque<QueueKey>,
    waiting: HashMap<QueueKey, VecDeque<Waiter<P>>>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Waiter<P> {
    ticket: u64,
    estimate: TokenEstimate,
    vendor_limits: Arc<VendorLimits>,
    grant: oneshot::Sender<P>,
}

impl<P> Default for FairQueue<P> {
    fn default() -> Self {
        Self { order: VecDeque::new(), waiting: HashMap::new(), next_ticket: 0 }
    }
}

impl<P> FairQueue<P> {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Refuses the newest request of the key that has most of them. Returns false, and refuses none, if that key does not
    /// have at least two more than `key`.
    pub(super) fn make_room(&mut self, key: &QueueKey) -> bool {
        let own = self.waiting.get(key).map_or(0, VecDeque::len);
        let longest = self.waiting.values_mut().max_by_key(|waiters| waiters.len());
        let Some(waiters) = longest.filter(|waiters| waiters.len() > own + 1) else { return false };
        // When its sender is dropped, the waiting request is refused and removes itself from the counts.
        drop(waiters.pop_back());
        true
    }

    /// Adds a request. Returns the ticket with which it leaves, and the channel that delivers its permit;
    /// the channel closes without a permit if the request is refused.
    pub(super) fn join(
        &mut self,
        key: &QueueKey,
        vendor_limits: &Arc<VendorLimits>,
        estimate: TokenEstimate,
    ) -> (u64, oneshot::Receiver<P>) {
        let (grant, granted) = oneshot::channel();
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let waiter = Waiter { ticket, estimate, vendor_limits: Arc::clone(vendor_limits), grant };
        if !self.waiting.contains_key(key) {
            self.order.push_back(key.clone());
        }
        self.waiting.entry(key.clone()).or_default().push_back(waiter);
        (ticket, granted)
    }

    /// Removes a request if it still waits, and its key if that was its last request.
    pub(super) fn leave(&mut self, key: &QueueKey, ticket: u64) {
        if let Some(waiters) = self.waiting.get_mut(key) {
            waiters.retain(|waiter| waiter.ticket != ticket);
            if waiters.is_empty() {
                self.waiting.remove(key);
                self.order.retain(|other| other != key);
            }
        }
    }

    /// Calls `take` for the requests in turn until it refuses one; returns those that got a permit. A request that is
    /// refused because of its vendor's limits blocks only its own model: requests for other models may pass it,
    /// requests for the same model may not.
    pub(super) fn serve(
        &mut self,
        mut take: impl FnMut(&Arc<VendorLimits>, TokenEstimate) -> Result<P, Refusal>,
    ) -> Vec<(oneshot::Sender<P>, P)> {
        let mut granted = Vec::new();
        let mut held: Vec<Arc<VendorLimits>> = Vec::new();
        let mut position = 0;
        while let Some(key) = self.order.get(position).cloned() {
            let Some((vendor_limits, estimate)) = self.head(&key) else {
                self.order.remove(position);
                self.waiting.remove(&key);
                continue;
            };
            if held.iter().any(|other| Arc::ptr_eq(other, &vendor_limits)) {
                position += 1;
                continue;
            }
            match take(&vendor_limits, estimate) {
                Ok(permit) => {
                    if let Some(waiter) = self.waiting.get_mut(&key).and_then(VecDeque::pop_front) {
                        granted.push((waiter.grant, permit));
                    }
                    self.order.remove(position);
                    self.order.push_back(key);
                }
                Err(Refusal { cause: Cause::Vendor, .. }) => {
                    held.push(vendor_limits);
                    position += 1;
                }
                Err(_) => break,
            }
        }
        granted
    }

    fn head(&self, key: &QueueKey) -> Option<(Arc<VendorLimits>, TokenEstimate)> {
        let waiter = self.waiting.get(key)?.front()?;
        Some((Arc::clone(&waiter.vendor_limits), waiter.estimate))
    }

    /// Number of keys that have a turn, and number of keys that have requests: always equal.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.order.len(), self.waiting.len())
    }
}
