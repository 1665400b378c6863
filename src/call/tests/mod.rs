//! Simulates whole calls: from a seed, on a virtual clock, with a disk, models, producers and readers that fail as real
//! ones do. After every step it checks the invariants of the design that concern one call.
//!
//! `SIDETONE_SIM_SEEDS` and `SIDETONE_SIM_STEPS` make it longer; `SIDETONE_SIM_SEED` is the first seed. A seed that
//! fails is run again and its steps are printed.

pub(in crate::call) mod bench;
mod checks;
mod disk;
mod driver;
mod honest;
mod models;
mod outcome;
mod producer;
mod random;
mod reading;
mod script;
mod steps;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use self::world::World;

const SEEDS: u64 = 10_000;
const STEPS: u64 = 200;
/// Maximum number of failing seeds in the message.
const MOST_BROKEN: usize = 20;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Runs one seed; returns the error, if there is one.
fn run(seed: u64, steps: u64, tracing: bool) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| World::new(seed, tracing).run(steps))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

#[test]
fn simulated_calls_keep_their_invariants() {
    let (first, seeds) = (number("SIDETONE_SIM_SEED", 0), number("SIDETONE_SIM_SEEDS", SEEDS));
    let steps = number("SIDETONE_SIM_STEPS", STEPS);
    let next = AtomicU64::new(first);
    let broken = Mutex::new(BTreeMap::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    // Each panic is caught; that of the first seed is shown below.
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while broken.lock().expect("not poisoned").len() < MOST_BROKEN {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    if let Err(message) = run(seed, steps, false) {
                        broken.lock().expect("not poisoned").insert(seed, message);
                    }
                }
            });
        }
    });
    drop(std::panic::take_hook());
    let broken = broken.into_inner().expect("not poisoned");
    let Some(seed) = broken.keys().next() else { return };
    run(*seed, steps, true).expect_err("a seed gives the same steps again");
    let all: Vec<String> = broken.iter().map(|(seed, message)| format!("seed {seed}: {message}")).collect();
    panic!(
        "{}\nSIDETONE_SIM_SEED={seed} SIDETONE_SIM_SEEDS=1 SIDETONE_SIM_STEPS={steps} runs the first one again",
        all.join("\n")
    );
}

#[test]
fn same_seed_gives_the_same_log() {
    for seed in 0..20 {
        let logs = [(); 2].map(|()| {
            let mut world = World::new(seed, false);
            world.run(STEPS);
            world.log_bytes()
        });
        assert!(!logs[0].is_empty() && logs[0] == logs[1], "seed {seed}");
    }
}
