//! The steps of a run.

use super::script::Naming;
use super::world::World;
use crate::call::input::{Attach, Detach, Gap, Input};
use crate::protocol::GapCause;
use crate::types::JsonMap;

macro_rules! note {
    ($world:expr, $($argument:tt)*) => {
        if $world.tracing {
            eprintln!("{:>8} ms  {}", $world.now_ms, format!($($argument)*));
        }
    };
}

impl World {
    pub(super) fn step(&mut self) {
        let call = self.call.as_ref().expect("in memory");
        if call.finished(self.now().ms) && self.flight.is_none() && self.may_crash() {
            note!(self, "the call leaves memory");
            self.leave();
            self.load(false);
        }
        if self.random.chance(self.knobs.crashes) && self.may_crash() {
            note!(self, "the daemon dies");
            return self.crash();
        }
        if self.random.chance(self.knobs.stops) && self.may_crash() {
            note!(self, "the daemon stops");
            return self.stop();
        }
        if self.random.chance(self.knobs.fills) {
            self.full_until_ms = self.now_ms + 1 + self.random.below(5_000);
            note!(self, "the disk is full until {} ms", self.full_until_ms);
        }
        match self.random.below(100) {
            0..50 => {
                let producer = self.random.index(self.producers.len());
                self.produce(producer);
            }
            50..65 => self.wait(),
            65..80 => {
                if self.append() {
                    self.settle();
                }
            }
            80..92 => self.hear(),
            _ => self.ask(),
        }
    }

    /// Returns false while a crash would lose information that no producer has: a producer that never read its welcome
    /// does not know which frames the daemon handled, and would resend them if its vendor does not name turns.
    fn may_crash(&self) -> bool {
        self.producers.iter().all(|producer| producer.attaching.is_none() || producer.naming != Naming::Held)
    }

    pub(super) fn produce(&mut self, index: usize) {
        let producer = &self.producers[index];
        if producer.over && !producer.connections.is_empty() {
            return self.detach(index);
        }
        if producer.over || !self.call.as_ref().expect("in memory").has_room() {
            return;
        }
        let live = producer.connections.len();
        let leaves = producer.connections.first().is_some_and(|connection| connection.closing);
        if leaves && self.random.chance(500) {
            return self.detach(index);
        }
        if producer.attaching.is_some() && live == 0 {
            return;
        }
        if live == 0 || (producer.attaching.is_none() && live == 1 && self.random.chance(self.knobs.takes_over)) {
            return self.attach(index);
        }
        if self.random.chance(self.knobs.drops) {
            return self.detach(index);
        }
        let connection = if leaves { 0 } else { live - 1 };
        if let Some((frame, frames)) = self.producers[index].next(connection) {
            note!(self, "{} sends frame {}: {frame:?}", self.producers[index].stream, frames.count);
            let watched = self.random.chance(500);
            self.input(Input::Frames { frames: Box::new(frames), watched });
        }
    }

    fn attach(&mut self, index: usize) {
        self.peers += 1;
        let peer = self.peers;
        let mut meta = JsonMap::new();
        if self.random.chance(200) {
            meta.insert("from".to_owned(), self.random.below(3).into());
        }
        let producer = &mut self.producers[index];
        producer.attaching = Some(peer);
        let attach = Attach {
            peer,
            stream: producer.stream.clone(),
            dialect: producer.naming.dialect(),
            offset_ms: None,
            meta,
            analyses: None,
            variants: std::collections::BTreeMap::new(),
            question: producer.question.clone(),
        };
        note!(self, "{} attaches as peer {peer}", attach.stream);
        self.input(Input::Attach(attach));
    }

    /// The oldest connection of a producer closes.
    pub(super) fn detach(&mut self, index: usize) {
        let producer = &mut self.producers[index];
        let gone = producer.connections.remove(0);
        let (stream, connection) = (producer.stream.clone(), gone.number);
        note!(self, "{stream} loses connection {connection}");
        self.input(Input::Detach(Detach { connection, stream }));
    }

    /// Lets time pass until the next deadline, or a part of that time.
    pub(super) fn wait(&mut self) {
        let due = [self.wake_at(), self.models.next_ms(), self.retry_at()].into_iter().flatten().min();
        let most = self.now_ms + 1 + self.random.below(self.knobs.pace_ms);
        let whole = self.random.chance(500);
        self.advance(due.map_or(most, |due| if whole { due } else { due.min(most) }));
    }

    /// The next wake-up time, on the run's clock.
    fn wake_at(&self) -> Option<u64> {
        Some(self.call.as_ref().expect("in memory").wake_at()? + self.loaded_ms)
    }

    fn advance(&mut self, to_ms: u64) {
        self.now_ms = self.now_ms.max(to_ms);
        note!(self, "it is {} ms", self.now_ms);
        let mut tries = 0;
        while self.wake_at().is_some_and(|at| at <= self.now_ms) {
            if self.call.as_ref().expect("in memory").finished(self.now().ms) {
                return;
            }
            self.input(Input::Timer);
            self.settle();
            tries += 1;
            assert!(tries < 10, "it wakes for nothing, again and again");
        }
        self.is_over_in_time();
    }

    /// A model answers, perhaps to a task that was given up.
    fn hear(&mut self) {
        if let Some((task, target)) = self.models.aborted.pop()
            && self.random.chance(300)
        {
            let result = self.models.result(&target, None, &mut self.random);
            return self.input(Input::Done { task, result });
        }
        if let Some(task) = self.models.due(self.now_ms, &mut self.random) {
            note!(self, "task {task} comes back");
            self.answer(task);
        }
    }

    fn ask(&mut self) {
        self.peers += 1;
        let ask = self.peers;
        if self.random.chance(self.knobs.by_hand) {
            let analysis = self.random.pick(&["summary", "sentiment", "sentiment_turn", "nothing"]).to_owned();
            if analysis != "sentiment_turn" {
                self.checks.by_hand.insert(analysis.clone());
            }
            note!(self, "{analysis} is asked for");
            return self.input(Input::Run { ask, analysis });
        }
        match self.random.below(10) {
            0 => {
                let stream = self.producers[0].stream.clone();
                self.input(Input::Gap(Gap { stream, cause: GapCause::TapOverrun, from_ms: 0, to_ms: 10 }));
            }
            1..4 => self.input(Input::View { ask }),
            4 => {
                let well = self.random.chance(500);
                self.input(Input::Journal { well });
            }
            _ => {}
        }
    }

    /// Readers read some of the durable records; records that they have read never change.
    pub(super) fn read(&mut self) {
        for reader in &mut self.readers {
            let from = reader.read.len();
            let until = (from + self.random.index(4)).min(self.log.len());
            reader.read.extend_from_slice(self.log.get(from..until).unwrap_or_default());
        }
    }
}
