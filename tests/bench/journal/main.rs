//! Measures the cost of the journal, compared with minimal programs for the same task, in the same run.
//!
//! * *inline*: appends of two events (as one turn makes) on the caller's thread, compared with a bare `write` per call
//!   of as many bytes with a checksum to a file; first in a closed loop, then at the rate of a daemon with little load,
//!   so that cores sleep in between.
//! * *machine*: the time from an append to its durable acknowledgement, compared with a bare writer with group commit:
//!   one thread and one file; everything that waits is written and synced at once.
//! * *cold*: opening a journal with 10,000 open calls, the memory of a call that was used, and reads.
//!
//! `cargo bench --bench journal [-- ROW…]`, rows: `inline paced machine cold`. The figures mean nothing on a busy
//! machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod sides;

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sidetone::journal::{Durability, NewRecord, Store as _};
use sidetone::types::CallId;
use tokio::sync::oneshot;

use self::sides::{Appender, Bare, Times, answered, calls, encode, entry, open, turn};

const CALLS: usize = 100;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let [row, dir] = args.as_slice()
        && row == "fill"
    {
        return fill(dir);
    }
    let wanted = |row: &str| args.is_empty() || args.iter().any(|arg| arg == row);
    if wanted("inline") {
        inline();
    }
    if wanted("paced") {
        paced();
    }
    if wanted("machine") {
        machine();
    }
    if wanted("cold") {
        cold();
    }
}

fn inline() {
    println!("inline, closed loop, {CALLS} calls, two events an append");
    let (dir, bare_dir) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    let store = open(dir.path(), Durability::Process);
    let mut appender = Appender::new(&store, calls(CALLS));
    let mut bare = Bare::new(&bare_dir, CALLS);
    let (mut ours, mut floor) = (Times(Vec::new()), Times(Vec::new()));
    let (mut ours_total, mut floor_total) = (Duration::ZERO, Duration::ZERO);
    // Both take turns in short stretches, so that other load on the machine affects both.
    for _ in 0..50 {
        for _ in 0..10 {
            for which in 0..CALLS {
                let batch = turn();
                let started = Instant::now();
                let commit = appender.append(which, batch);
                let took = started.elapsed();
                drop(commit);
                ours_total += took;
                ours.0.push(took);
            }
        }
        for _ in 0..10 {
            for which in 0..CALLS {
                let batch = turn();
                let started = Instant::now();
                bare.append(which, &batch);
                let took = started.elapsed();
                floor_total += took;
                floor.0.push(took);
            }
        }
    }
    floor.row("bare write", None);
    ours.row("journal", Some(&mut floor));
    let per_second = |times: &Times, total: Duration| (times.0.len() * 2) as f64 / total.as_secs_f64();
    println!(
        "  events/s on one thread             bare {:.0}, journal {:.0} (aim 50,000)",
        per_second(&floor, floor_total),
        per_second(&ours, ours_total)
    );
    let threads = 2;
    let rounds = 300;
    let started = Instant::now();
    thread::scope(|scope| {
        for part in 0..threads {
            let store = &store;
            scope.spawn(move || {
                let names = (0..CALLS).map(|number| CallId::parse(&format!("t_{part}_{number}")).expect("id"));
                let mut appender = Appender::new(store, names.collect());
                for _ in 0..rounds {
                    for which in 0..CALLS {
                        appender.append(which, turn());
                    }
                }
            });
        }
    });
    let events = (threads * (rounds + 1) * CALLS * 2) as f64;
    println!("  events/s on {threads} threads              journal {:.0}", events / started.elapsed().as_secs_f64());
    answered(store.close()).expect("closed");
}

fn paced() {
    println!("inline, 250 appends/s over {CALLS} calls, 8 s, the syncer at work");
    let (dir, bare_dir) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    let store = open(dir.path(), Durability::Process);
    let mut appender = Appender::new(&store, calls(CALLS));
    let mut bare = Bare::new(&bare_dir, CALLS);
    let (mut ours, mut floor) = (Times(Vec::new()), Times(Vec::new()));
    let begin = Instant::now();
    for number in 0..2000_u32 {
        let due = begin + Duration::from_millis(4) * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let which = number as usize % CALLS;
        // The first of the two warms the caches for the second, so they take turns.
        for turn_of_ours in [number % 2 == 0, number % 2 == 1] {
            let batch = turn();
            let started = Instant::now();
            if turn_of_ours {
                let commit = appender.append(which, batch);
                ours.0.push(started.elapsed());
                drop(commit);
            } else {
                bare.append(which, &batch);
                floor.0.push(started.elapsed());
            }
        }
    }
    floor.row("bare write", None);
    ours.row("journal", Some(&mut floor));
    answered(store.close()).expect("closed");
}

fn machine() {
    for writers in [1, 10, 100] {
        println!(
            "durability \"machine\", {writers} calls, each with one append in flight, {STRETCHES} x {STRETCH:?} each"
        );
        let (mut ours, mut floor) = (Times(Vec::new()), Times(Vec::new()));
        for _ in 0..STRETCHES {
            floor.0.append(&mut group_commit(writers));
            ours.0.append(&mut machine_journal(writers));
        }
        floor.row("bare group commit", None);
        ours.row("journal", Some(&mut floor));
        let per_second = |times: &Times| times.0.len() as f64 / (STRETCH * STRETCHES).as_secs_f64();
        println!(
            "  appends/s                          bare {:.0}, journal {:.0}",
            per_second(&floor),
            per_second(&ours)
        );
    }
}

const STRETCH: Duration = Duration::from_millis(500);
const STRETCHES: u32 = 8;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}

fn machine_journal(writers: usize) -> Vec<Duration> {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path(), Durability::Machine);
    let times = runtime().block_on(async {
        let tasks = calls(writers).into_iter().map(|call| {
            let store = Arc::clone(&store);
            tokio::task::spawn(async move {
                let mut head = store.append(&call, 0, turn(), Some(entry(&call))).await.expect("commit").head;
                let (begin, mut times) = (Instant::now(), Vec::new());
                while begin.elapsed() < STRETCH {
                    let started = Instant::now();
                    head = store.append(&call, head, turn(), None).await.expect("commit").head;
                    times.push(started.elapsed());
                }
                times
            })
        });
        gather(tasks.collect()).await
    });
    answered(store.close()).expect("closed");
    times
}

/// The floor: all waiting writes go to one file and are synced together.
fn group_commit(writers: usize) -> Vec<Duration> {
    type Wanted = (Vec<NewRecord>, oneshot::Sender<()>);
    let dir = tempfile::tempdir().expect("dir");
    let mut file = File::create(dir.path().join("log")).expect("file");
    let (sender, receiver) = std_mpsc::sync_channel::<Wanted>(writers);
    let writer = thread::spawn(move || {
        let mut buffer = Vec::new();
        while let Ok(first) = receiver.recv() {
            let group: Vec<Wanted> = std::iter::once(first).chain(receiver.try_iter()).collect();
            buffer.clear();
            group.iter().for_each(|(batch, _)| encode(&mut buffer, batch));
            file.write_all(&buffer).expect("written");
            file.sync_data().expect("synced");
            group.into_iter().for_each(|(_, done)| done.send(()).expect("told"));
        }
    });
    let times = runtime().block_on(async {
        let tasks = (0..writers).map(|_| {
            let sender = sender.clone();
            tokio::task::spawn(async move {
                let (begin, mut times) = (Instant::now(), Vec::new());
                while begin.elapsed() < STRETCH {
                    let started = Instant::now();
                    let (done, told) = oneshot::channel();
                    sender.send((turn(), done)).expect("sent");
                    told.await.expect("durable");
                    times.push(started.elapsed());
                }
                times
            })
        });
        gather(tasks.collect()).await
    });
    drop(sender);
    writer.join().expect("ended");
    times
}

async fn gather(tasks: Vec<tokio::task::JoinHandle<Vec<Duration>>>) -> Vec<Duration> {
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("ran"));
    }
    times
}

const OPEN: usize = 10_000;

/// Leaves a journal as a killed daemon leaves it.
fn fill(dir: &str) {
    let store = open(Path::new(dir), Durability::Process);
    let mut appender = Appender::new(&store, calls(OPEN));
    for _ in 1..20 {
        (0..OPEN).for_each(|which| drop(appender.append(which, turn())));
    }
}

fn cold() {
    println!("cold, {OPEN} open calls of 20 turns");
    let dir = tempfile::tempdir().expect("dir");
    // A new process, so that the memory counted below is new.
    let this = std::env::current_exe().expect("this");
    let filled = Command::new(this).arg("fill").arg(dir.path()).status().expect("ran");
    assert!(filled.success());
    let names = calls(OPEN);
    let before = resident();
    let started = Instant::now();
    let store = open(dir.path(), Durability::Process);
    println!("  opened in {:.1?}; {} bytes a call", started.elapsed(), (resident() - before) / OPEN);
    let started = Instant::now();
    black_box(answered(store.since(store.order())).expect("since"));
    println!("  since(now), nothing touched yet: {:.1?}", started.elapsed());
    let mut touch = Times(Vec::new());
    let before = resident();
    for call in &names {
        let started = Instant::now();
        black_box(answered(store.head(call)).expect("head"));
        touch.0.push(started.elapsed());
    }
    touch.row("first touch of a call", None);
    println!("  {} bytes a call once touched, beyond its entry", resident().saturating_sub(before) / OPEN);
    let mut read = Times(Vec::new());
    for call in names.iter().cycle().step_by(7).take(20_000) {
        let started = Instant::now();
        black_box(answered(store.read(call, 8, 64 << 10)).expect("read"));
        read.0.push(started.elapsed());
    }
    read.row("read of the rest of a call", None);
    assert_eq!(answered(store.open_calls()).expect("open calls").len(), OPEN);
    answered(store.close()).expect("closed");
}

/// Bytes of memory that the process has.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: usize = status.split(' ').nth(1).expect("resident").parse().expect("pages");
    pages * 4096
}
