//! A fuzzer for limits: generated schemas, answers, transcripts, frames, configurations and requests, each handled
//! while its cost is measured. A case that costs more than its limit fails, and its subject and seed are printed.
//!
//! Decoders of vendors' formats and the scan of a call's log are tried by the fuzz targets of `tests/fuzz`, on fixtures
//! that are changed in a few places.
//!
//! All of it together runs for `SIDETONE_TEST_FUZZ_SECONDS` (30), starting at seed `SIDETONE_TEST_SEED` (1). By hand,
//! for an hour:
//!
//! ```text
//! SIDETONE_TEST_FUZZ_SECONDS=3600 SIDETONE_TEST_SEED=1000000 cargo test --test it bounds::fuzz -- --nocapture
//! SIDETONE_TEST_FUZZ_CASE=schema:17 cargo test --test it bounds::fuzz -- --nocapture
//! ```
//!
//! Cases that once failed are kept in [`KNOWN`] and run first.

mod decoders;
mod gateway;
mod generate;
mod meter;
mod subjects;
#[path = "../../fuzz/targets.rs"]
mod targets;

use std::time::{Duration, Instant};

use self::meter::{Bounds, Spent};
use crate::support::{Chance, knob, shared};

/// Handles the input that it contains; returns the steps that its budget counted.
type Case = Box<dyn FnOnce() -> Spent>;

/// One kind of input.
struct Subject {
    name: &'static str,
    /// Generates an input. Not metered.
    case: fn(&mut Chance) -> Case,
    bounds: Bounds,
}

/// Limits of one case. Steps have limits in the code; these limits apply to their real cost. A debug build on a busy
/// machine is far below them; real errors are above them by orders of magnitude.
const SUBJECTS: &[Subject] = &[
    Subject { name: "schema", case: subjects::schema, bounds: Bounds { cpu_ms: 20_000, us_per_step: 40, mib: 192 } },
    Subject { name: "pattern", case: subjects::pattern, bounds: Bounds { cpu_ms: 20_000, us_per_step: 40, mib: 192 } },
    Subject { name: "repair", case: subjects::repair, bounds: Bounds { cpu_ms: 20_000, us_per_step: 40, mib: 192 } },
    Subject {
        name: "evidence",
        case: subjects::evidence,
        bounds: Bounds { cpu_ms: 20_000, us_per_step: 40, mib: 192 },
    },
    Subject { name: "prompt", case: subjects::prompt, bounds: Bounds { cpu_ms: 20_000, us_per_step: 0, mib: 128 } },
    Subject { name: "file", case: subjects::file, bounds: Bounds { cpu_ms: 20_000, us_per_step: 0, mib: 192 } },
    Subject { name: "config", case: subjects::config, bounds: Bounds { cpu_ms: 20_000, us_per_step: 0, mib: 128 } },
    Subject { name: "frame", case: subjects::frame, bounds: Bounds { cpu_ms: 20_000, us_per_step: 0, mib: 128 } },
    Subject { name: "answer", case: gateway::answer, bounds: Bounds { cpu_ms: 20_000, us_per_step: 0, mib: 128 } },
    Subject { name: "dense", case: gateway::dense, bounds: Bounds { cpu_ms: 20_000, us_per_step: 0, mib: 128 } },
    Subject { name: "request", case: gateway::request, bounds: Bounds { cpu_ms: 20_000, us_per_step: 0, mib: 128 } },
    Subject { name: "stt", case: decoders::stt, bounds: Bounds { cpu_ms: 20_000, us_per_step: 0, mib: 128 } },
    Subject { name: "llm", case: decoders::llm, bounds: Bounds { cpu_ms: 20_000, us_per_step: 0, mib: 128 } },
    Subject { name: "framing", case: decoders::framing, bounds: Bounds { cpu_ms: 20_000, us_per_step: 0, mib: 128 } },
    Subject { name: "text", case: decoders::text, bounds: Bounds { cpu_ms: 20_000, us_per_step: 0, mib: 128 } },
    Subject { name: "journal", case: decoders::journal, bounds: Bounds { cpu_ms: 20_000, us_per_step: 0, mib: 128 } },
];

/// Cases that once failed, by subject and seed.
///
/// * `schema:28` overflowed the stack: schema and answer led 200 parts deep.
/// * `answer:2006337` took 26 s: see the commit that added it.
/// * `stt:5000367` is no cost: an unreadable frame of `elevenlabs` counted as a change of what its decoder holds.
const KNOWN: &[(&str, u64)] = &[("schema", 28), ("answer", 2_006_337), ("stt", 5_000_367)];

#[test]
fn fuzz_cases_stay_within_their_limits() {
    let _machine = tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(shared());
    // With the stack of the daemon's threads.
    let worker = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(fuzz).expect("a thread");
    if let Err(panic) = worker.join() {
        std::panic::resume_unwind(panic);
    }
}

fn fuzz() {
    if let Ok(case) = std::env::var("SIDETONE_TEST_FUZZ_CASE") {
        let (name, seed) = case.split_once(':').expect("SUBJECT:SEED");
        return run(subject(name), seed.parse().expect("a seed"));
    }
    for (name, seed) in KNOWN {
        run(subject(name), *seed);
    }
    let until = Instant::now() + Duration::from_secs(knob("FUZZ_SECONDS", 30) as u64);
    let first = knob("SEED", 1) as u64;
    let mut seed = first;
    while Instant::now() < until {
        for subject in SUBJECTS {
            run(subject, seed);
        }
        seed += 1;
    }
    println!("{} seeds, {} subjects each, from seed {first}", seed - first, SUBJECTS.len());
}

fn subject(name: &str) -> &'static Subject {
    SUBJECTS.iter().find(|subject| subject.name == name).unwrap_or_else(|| panic!("no subject {name:?}"))
}

fn run(subject: &Subject, seed: u64) {
    let case = format!("{}:{seed}", subject.name);
    // A stack overflow ends the process without a word: the file says what ran.
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/bounds.case"), &case).expect("note the case");
    let mut chance = Chance(seed ^ subject.name.bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte)));
    let metered = meter::measure((subject.case)(&mut chance));
    if let Err(why) = metered.within(&subject.bounds) {
        panic!("{case}: {why}; again by SIDETONE_TEST_FUZZ_CASE={case}");
    }
}
