//! A configured rate: how many requests or tokens are sent in any minute.
//!
//! An amount is counted before it is sent, by an estimate; the real amount is settled afterwards. Knows no clock and no
//! queue: the caller passes the time and does the waiting.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Period of a configured limit.
const MINUTE: Duration = Duration::from_secs(60);
/// Resolution of the period; a use may count for this much longer than a minute.
const SLOT: Duration = Duration::from_millis(100);

/// A configured limit: never more than that in any minute, however the vendor counts.
#[derive(Debug)]
pub(super) struct RateWindow {
    limit: u64,
    start: Instant,
    used: u64,
    /// Uses by time slot, oldest first.
    slots: VecDeque<(u64, u64)>,
}

impl RateWindow {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, start: Instant::now(), used: 0, slots: VecDeque::new() }
    }

    fn slot(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis() / SLOT.as_millis()).unwrap_or(u64::MAX)
    }

    /// When the uses of a slot no longer count.
    fn over(&self, slot: u64) -> Instant {
        self.start + SLOT.saturating_mul(u32::try_from(slot.saturating_add(1)).unwrap_or(u32::MAX)) + MINUTE
    }

    /// How long until `amount` fits; zero = now. An amount above the limit itself fits when nothing else is counted.
    pub(super) fn wait(&mut self, amount: u64, now: Instant) -> Duration {
        while let Some((slot, used)) = self.slots.front().copied()
            && now >= self.over(slot)
        {
            self.used = self.used.saturating_sub(used);
            self.slots.pop_front();
        }
        let room = self.limit - amount.min(self.limit);
        let mut used = self.used;
        let mut until = now;
        for &(slot, freed) in &self.slots {
            if used <= room {
                break;
            }
            used = used.saturating_sub(freed);
            until = self.over(slot);
        }
        until - now
    }

    /// Counts `amount`. Returns the slot, which [`Self::settle`] needs.
    pub(super) fn add(&mut self, amount: u64, now: Instant) -> u64 {
        let slot = self.slot(now);
        self.used = self.used.saturating_add(amount);
        if let Some((last, used)) = self.slots.back_mut()
            && *last >= slot
        {
            *used = used.saturating_add(amount);
            return *last;
        }
        self.slots.push_back((slot, amount));
        slot
    }

    /// Replaces the estimate in a slot with the real amount.
    pub(super) fn settle(&mut self, slot: u64, estimate: u64, amount: u64) {
        // A slot that no longer counts needs no settling.
        let Some((_, used)) = self.slots.iter_mut().find(|(known, _)| *known == slot) else { return };
        let settled = used.saturating_add(amount).saturating_sub(estimate);
        self.used = self.used.saturating_add(settled).saturating_sub(*used);
        *used = settled;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn no_minute_holds_more_than_the_limit() {
        let mut window = RateWindow::new(10);
        let start = window.start;
        let mut sent = Vec::new();
        let mut now = start;
        // Sends as fast as the window allows, for five minutes.
        while now < start + seconds(300) {
            match window.wait(3, now) {
                Duration::ZERO => {
                    window.add(3, now);
                    sent.push(now);
                    now += Duration::from_millis(700);
                }
                wait => now += wait,
            }
        }
        for (index, first) in sent.iter().enumerate() {
            let within = sent[index..].iter().filter(|at| **at < *first + MINUTE).count();
            assert!(within <= 3, "{within} in one minute");
        }
        assert!(sent.len() >= 14, "and hardly less than it: {}", sent.len());
    }

    #[test]
    fn amount_is_settled_and_one_above_the_limit_goes_alone() {
        let mut window = RateWindow::new(1000);
        let start = window.start;
        let slot = window.add(900, start);
        assert!(window.wait(200, start) > seconds(59));
        window.settle(slot, 900, 100);
        assert_eq!(window.wait(900, start), Duration::ZERO);
        assert!(window.wait(5000, start) > seconds(59), "not beside another");
        assert_eq!(window.wait(5000, start + seconds(61)), Duration::ZERO);
        // A settlement after the end of the minute changes nothing.
        window.settle(slot, 100, 5000);
        assert_eq!(window.wait(1000, start + seconds(61)), Duration::ZERO);
    }
}
