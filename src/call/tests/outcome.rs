//! How a run ends, and what must be true then.

use super::checks;
use super::world::World;
use crate::types::directory::CallState;

impl World {
    /// All faults are over: producers send their remaining frames, models answer, and the call ends.
    pub(super) fn end(&mut self) {
        self.full_until_ms = 0;
        (self.knobs.append_fails, self.knobs.drops, self.knobs.takes_over) = (0, 0, 0);
        (self.models.manners.failing, self.models.manners.nobody, self.models.manners.breaking) = (0, 0, 0);
        for _ in 0..2_000 {
            if self.append() {
                self.settle();
            }
            for index in 0..self.producers.len() {
                self.produce(index);
                let producer = &self.producers[index];
                if !producer.connections.is_empty()
                    && producer.is_done()
                    && producer.is_acked()
                    && producer.is_answered()
                {
                    self.detach(index);
                    self.producers[index].over = true;
                }
            }
            self.settle();
            while let Some(task) = self.models.due(self.now_ms, &mut self.random) {
                self.answer(task);
                self.settle();
            }
            let call = self.call.as_ref().expect("in memory");
            let empty = call.log.head == 0;
            let nobody = self.producers.iter().all(|producer| producer.over && producer.connections.is_empty());
            if (self.checks.completed || (empty && nobody)) && self.flight.is_none() {
                break;
            }
            if self.producers.iter().all(|producer| producer.over || producer.connections.is_empty())
                || self.random.chance(200)
            {
                self.wait();
            }
        }
        if self.checks.durable.head() == 0 {
            return;
        }
        assert!(self.checks.completed, "the call does not come to its end");
        self.after_the_end();
    }

    fn after_the_end(&mut self) {
        let call = self.call.as_ref().expect("in memory");
        checks::same(&call.log, &self.checks.durable);
        assert_eq!(self.disk.entry.as_ref().map(|entry| entry.state), Some(CallState::Completed));
        for producer in &self.producers {
            let sent = &producer.script[..producer.acked];
            self.checks.are_durable(sent.iter().flat_map(|frame| frame.words()));
            self.checks.in_order(producer.stream.as_str());
        }
        if self.per_turn {
            self.checks.every_turn_answered("sentiment_turn");
        }
        let log = self.disk.recover();
        assert!(log == self.log, "the disk holds what was published");
        for reader in &self.readers {
            assert!(log.starts_with(&reader.read), "what was published has changed");
        }
        // All producers disconnect, nothing more happens, and the call is dropped from memory.
        for index in 0..self.producers.len() {
            while !self.producers[index].connections.is_empty() {
                self.detach(index);
            }
        }
        self.settle();
        for _ in 0..20 {
            if self.call.as_ref().expect("in memory").finished(self.now().ms) {
                return;
            }
            self.wait();
            self.settle();
            if self.append() {
                self.settle();
            }
            while let Some(task) = self.models.due(self.now_ms, &mut self.random) {
                self.answer(task);
                self.settle();
            }
        }
        panic!("a completed call stays in memory");
    }
}
