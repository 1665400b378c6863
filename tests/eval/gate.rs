//! The gate, on turns that a person labelled: `gate.txt`.

use sidetone::analysis::gate::adds_nothing;

use crate::data::Call;

const LABELS: &str = include_str!("gate.txt");
/// Minimum share of the turns that change nothing and that the gate must recognise as such, and maximum share of the
/// other turns that it may take for such. Measured on turns that were labelled after the gate was trained.
const PASSED: f64 = 0.60;
const MISSED: f64 = 0.02;

/// Turns of one section of the labels.
#[derive(Default)]
struct Counts {
    idle: usize,
    passed: usize,
    other: usize,
    missed: usize,
}

impl Counts {
    fn add(&mut self, call: &Call, first: usize, idle: &[usize]) {
        let texts: Vec<&str> = call.turns.iter().take(first).map(|turn| turn.text.as_str()).collect();
        assert_eq!(texts.len(), first, "{}: other turns than those that were labelled", call.name);
        // A call's first turn always adds something.
        for at in 1..first {
            let passed = usize::from(adds_nothing(texts[at], texts[..at].iter().rev().copied()));
            if idle.contains(&at) {
                (self.idle, self.passed) = (self.idle + 1, self.passed + passed);
            } else {
                (self.other, self.missed) = (self.other + 1, self.missed + passed);
            }
        }
    }

    fn shares(&self) -> (f64, f64) {
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        (share(self.passed, self.idle), share(self.missed, self.other))
    }
}

pub(crate) fn check(calls: &[Call]) -> bool {
    println!("\ngate: of the turns that change nothing, and of those that change something, how many it passes over");
    let (mut seen, mut held_out) = (Counts::default(), Counts::default());
    let mut is_held_out = false;
    for line in LABELS.lines().filter(|line| !line.starts_with('#')) {
        if line == "[held out]" {
            is_held_out = true;
            continue;
        }
        let mut fields = line.split(' ');
        let name = fields.next().expect("a call");
        let numbers: Vec<usize> = fields.map(|number| number.parse().expect("a number")).collect();
        let call = calls.iter().find(|call| call.name == name).unwrap_or_else(|| panic!("no recording {name}"));
        let counts = if is_held_out { &mut held_out } else { &mut seen };
        counts.add(call, numbers[0], &numbers[1..]);
    }
    for (title, counts) in [("read before it was made", &seen), ("held out", &held_out)] {
        let (passed, missed) = counts.shares();
        println!("  {title:<24} {passed:.3} of {:>3}   {missed:.3} of {:>3}", counts.idle, counts.other);
    }
    let (passed, missed) = held_out.shares();
    passed >= PASSED && missed <= MISSED
}
