//! The cost of a case: steps by its own budget, CPU time of this thread, memory of the process.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Limits of one case.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// CPU time, ms.
    pub(super) cpu_ms: u64,
    /// CPU time per counted step, µs, if steps are counted: work that is not counted shows here.
    pub(super) us_per_step: u64,
    /// MiB of memory above what the process had before.
    pub(super) mib: u64,
}

/// The costs that the case itself counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    /// Steps.
    pub(super) steps: u64,
}

/// The measured costs.
#[derive(Debug)]
pub(super) struct Metered {
    spent: Result<Spent, String>,
    cpu_us: u64,
    bytes: u64,
}

/// CPU time that belongs to no case: generating the input, the first use of a table.
const BASE_US: u64 = 2_000_000;

pub(super) fn measure(run: impl FnOnce() -> Spent) -> Metered {
    let before = rss();
    // Resets the peak to the current resident memory.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let began = cpu_us();
    let spent = catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    });
    let cpu_us = cpu_us().saturating_sub(began);
    Metered { spent, cpu_us, bytes: peak().saturating_sub(before) }
}

impl Metered {
    pub(super) fn within(&self, bounds: &Bounds) -> Result<(), String> {
        let spent = self.spent.as_ref().map_err(|panic| format!("it panics: {panic}"))?;
        let (ms, mib) = (self.cpu_us / 1_000, self.bytes >> 20);
        if ms > bounds.cpu_ms {
            return Err(format!("{ms} ms of at most {}", bounds.cpu_ms));
        }
        if mib > bounds.mib {
            return Err(format!("{mib} MiB of at most {}", bounds.mib));
        }
        let counted = BASE_US + spent.steps * bounds.us_per_step;
        if bounds.us_per_step > 0 && self.cpu_us > counted {
            return Err(format!("{ms} ms for the {} steps that it counted", spent.steps));
        }
        Ok(())
    }
}

/// CPU time of this thread, µs.
fn cpu_us() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0) / 1_000
}

fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn rss() -> u64 {
    status("VmRSS:")
}

fn peak() -> u64 {
    status("VmHWM:")
}

#[test]
fn meter_detects_a_case_over_its_limit() {
    let bounds = Bounds { cpu_ms: 20_000, us_per_step: 40, mib: 32 };
    let metered = measure(Spent::default);
    metered.within(&bounds).expect("nothing was done");
    let metered = measure(|| {
        let large = std::hint::black_box(vec![1_u8; 64 << 20]);
        Spent { steps: u64::from(large[5]) }
    });
    assert!(metered.within(&bounds).expect_err("memory").contains("MiB"), "{metered:?}");
    let metered = measure(|| {
        let began = cpu_us();
        while cpu_us() - began < BASE_US + 100_000 {
            std::hint::spin_loop();
        }
        Spent { steps: 1 }
    });
    assert!(metered.within(&bounds).expect_err("uncounted work").contains("steps that it counted"), "{metered:?}");
    assert!(metered.within(&Bounds { cpu_ms: 1_000, ..bounds }).expect_err("time").contains("of at most 1000"));
    let metered = measure(|| panic!("on purpose"));
    assert!(metered.within(&bounds).expect_err("a panic").contains("on purpose"));
}
