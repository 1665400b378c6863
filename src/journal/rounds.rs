//! Durability `"machine"`: batches are synced in rounds (group commit). All batches that wait are synced together, then
//! announced.
//!
//! Each call has a file of its own, so a round syncs either each file or the whole file system at once, whichever was
//! faster recently. For one call that is its file (measured: 0.2 ms), for many the file system (10 calls 0.3 ms instead
//! of 1.8, 100 calls 1.8 ms instead of 11), unless another program writes a lot there.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::JournalError;
use super::slot::Slot;
use super::store::Shared;
use super::sync::{sync_all, sync_log};
use super::work::Unsynced;

/// Runs rounds until the store stops.
pub(super) fn rounds(shared: &Shared) {
    let mut costs = Costs { file: 0.000_2, system: 0.000_3 };
    while let Some(round) = shared.work.round() {
        let mut round: Vec<Waiting> = round.into_iter().map(Waiting::new).collect();
        sync_logs(shared, &mut round, &mut costs);
        set_entries(shared, &mut round);
        for waiting in round {
            waiting.settle(shared);
        }
    }
}

/// A batch in a round.
struct Waiting {
    batch: Unsynced,
    result: Result<(), JournalError>,
    /// Set if the directory has a line about the batch that is not synced yet.
    line: bool,
    /// The directory's entry before the batch.
    known: Option<Slot>,
}

/// Recent duration of a sync in seconds: of one file, and of the file system.
struct Costs {
    file: f64,
    system: f64,
}

impl Costs {
    fn note(cost: &mut f64, started: Instant) {
        *cost = *cost * 0.8 + started.elapsed().as_secs_f64() * 0.2;
    }
}

/// Syncs the logs of a round; for new calls, also their names and entries.
fn sync_logs(shared: &Shared, round: &mut [Waiting], costs: &mut Costs) {
    // For a new call, the log, its name and its entry must be synced.
    let files: usize = round.iter().map(|waiting| if waiting.batch.new { 3 } else { 1 }).sum();
    let one_by_one = files == 1 || costs.file * files as f64 <= costs.system;
    if one_by_one {
        // The reason why the other way was slow may have ended.
        costs.system *= 0.995;
        for waiting in round.iter_mut().filter(|waiting| waiting.batch.written()) {
            let started = Instant::now();
            waiting.note(shared, sync_log(shared, &waiting.batch.durable.log));
            Costs::note(&mut costs.file, started);
        }
        return;
    }
    let started = Instant::now();
    let synced = sync_all(shared, round.iter().map(|waiting| &waiting.batch.durable.log));
    Costs::note(&mut costs.system, started);
    match synced {
        Ok(()) => {
            for waiting in round {
                waiting.line = false;
            }
        }
        Err(error) => {
            let failure = shared.failed("sync", &error);
            for waiting in round {
                waiting.result = Err(failure.clone());
            }
        }
    }
}

/// Stores the entries that change with the batches of a round, and syncs them.
fn set_entries(shared: &Shared, round: &mut [Waiting]) {
    for waiting in round.iter_mut().filter(|waiting| waiting.result.is_ok()) {
        let Some(entry) = waiting.batch.entry.take() else { continue };
        let log = Arc::clone(&waiting.batch.durable.log);
        waiting.known = shared.calls.with(&log.call, Slot::clone);
        waiting.line = true;
        let set = shared.set_entry(&mut log.content(), entry);
        waiting.note(shared, set);
    }
    if round.iter().any(|waiting| waiting.line)
        && let Err(error) = shared.calls.sync()
    {
        let failure = shared.failed("sync", &error);
        for waiting in round.iter_mut().filter(|waiting| waiting.line) {
            waiting.result = Err(failure.clone());
        }
    }
}

impl Waiting {
    fn new(batch: Unsynced) -> Self {
        Self { line: batch.new, result: Ok(()), known: None, batch }
    }

    fn note(&mut self, shared: &Shared, result: io::Result<()>) {
        if let Err(error) = result {
            self.result = Err(shared.failed("sync", &error));
        }
    }

    /// Announces the batch, or undoes it.
    fn settle(self, shared: &Shared) {
        let Unsynced { ticket, durable, before, .. } = self.batch;
        let Err(failure) = self.result else {
            shared.health.works();
            // Every batch here has a waiting caller, so there is no result to return.
            drop(ticket.durable(durable));
            return;
        };
        let mut content = durable.log.content();
        if let Some(known) = self.known {
            content.open = known.open();
            if let Err(error) = shared.calls.put(known.clone()) {
                shared.failed("restore the entry of a call", &error);
                shared.calls.put_in_memory(known);
            }
        }
        shared.rollback(&durable.log, &mut content, before);
        drop(content);
        // A part of the batch may have been synced before the failure, so its removal must be synced too.
        if let Err(error) = sync_log(shared, &durable.log) {
            shared.failed("sync", &error);
        }
        drop(ticket);
        if let Some(answer) = durable.answer {
            drop(answer.send(Err(failure)));
        }
    }
}
