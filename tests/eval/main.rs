//! Measures the embedded provider on human labels and human summaries, compared with baselines; run by
//! `scripts/eval-local`. Prints the figures and fails if a published baseline is not reached. It is skipped, with a
//! message, if the recordings do not exist (`SIDETONE_RECORDINGS`, or `../shared/recordings`): they belong to others
//! and are not part of the project.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod baselines;
mod data;
mod gate;

use std::process::ExitCode;

use data::{Call, Set};
use sidetone::evaluation::rouge;
use sidetone::evaluation::score::Score;
use sidetone::llm::ChatRequest;
use sidetone::llm::local;
use sidetone::types::Transcript;

/// Published figures that the embedded provider must reach: MELD dev (best of VADER and AFINN), DialogSum test and
/// QMSum test (best of first turns and centroid).
const MELD: (f64, f64) = (0.471, 0.402);
const DIALOGSUM: (f64, f64) = (0.307, 0.245);
const QMSUM: (f64, f64) = (0.212, 0.116);

fn main() -> ExitCode {
    // Test runners list the tests before they run them.
    let asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    if asked("--list") {
        if !asked("--ignored") {
            println!("local: test");
        }
        return ExitCode::SUCCESS;
    }
    let Some(calls) = data::load() else {
        println!("eval: SKIPPED: no recordings at {}; set SIDETONE_RECORDINGS", data::folder().display());
        println!("0 passed, 0 failed, 1 skipped");
        return ExitCode::SUCCESS;
    };
    let good = [
        sentiment(&calls),
        summaries("DialogSum", Set::DialogSum, 2, DIALOGSUM, &calls),
        summaries("QMSum", Set::QmSum, 5, QMSUM, &calls),
        gate::check(&calls),
    ];
    let failed = good.iter().filter(|good| !**good).count();
    println!("{} passed, {failed} failed", good.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// From a turn's text to its label.
type Labeller<'a> = &'a dyn Fn(&str) -> &'static str;
/// From a call to its summary.
type Summariser<'a> = &'a dyn Fn(&Call) -> String;

/// Accuracy and macro-F1 of the three classes.
fn sentiment(calls: &[Call]) -> bool {
    println!("\nsentiment of a turn, three classes: accuracy, macro-F1 (F1 of negative, neutral, positive)");
    let methods: [(&str, Labeller<'_>); 4] = [
        ("always neutral", &|_| "neutral"),
        ("VADER at 0.05", &|text| baselines::vader(text, 0.05)),
        ("VADER at 0.40", &|text| baselines::vader(text, 0.40)),
        ("local", &|text| local::mood(text).label()),
    ];
    let mut figures = (0.0, 0.0);
    for (title, part, human) in [
        ("MELD, human labels", "meld-", true),
        ("  its train files", "meld-train", true),
        ("  its dev files", "meld-dev", true),
        ("HVB, a model's labels", "hvb-", false),
    ] {
        let of_part = calls.iter().filter(|call| call.name.starts_with(part));
        let pairs: Vec<(&str, &str)> = of_part.flat_map(Call::labelled).collect();
        println!("{title}: {} turns", pairs.len());
        for (name, judge) in &methods {
            let score = Score::of(pairs.iter().map(|(text, gold)| (*gold, judge(text)))).expect("labelled turns");
            println!("  {name:<18} {score}");
            if *name == "local" && part == "meld-" && human {
                figures = (score.accuracy, score.macro_f1);
            }
        }
    }
    println!("  published for MELD dev: VADER 0.471, 0.390; AFINN 0.437, 0.402");
    figures.0 >= MELD.0 && figures.1 >= MELD.1
}

/// ROUGE-1 and ROUGE-L of the extract: of its points alone, and of the headline and the points together. The latter are
/// compared with the published figures.
fn summaries(title: &str, set: Set, turns: usize, floor: (f64, f64), calls: &[Call]) -> bool {
    let calls: Vec<&Call> = calls.iter().filter(|call| call.set == set && call.summary.is_some()).collect();
    println!("\n{title}, {} human summaries: ROUGE-1, ROUGE-L (F1, no stemming), words", calls.len());
    let methods: [(String, Summariser<'_>); 5] = [
        (format!("first {turns} turns"), &|call| baselines::first(call, turns)),
        (format!("longest {turns} turns"), &|call| baselines::longest(call, turns)),
        (format!("centroid {turns} turns"), &|call| baselines::centroid(call, turns)),
        ("local, points".to_owned(), &points),
        ("local, whole".to_owned(), &|call| format!("{} {}", headline(call), points(call))),
    ];
    let mut figures = (0.0, 0.0);
    for (name, summarise) in &methods {
        let (mut one, mut longest, mut length) = (0.0, 0.0, 0.0);
        for call in &calls {
            let (made, human) =
                (rouge::tokens(&summarise(call)), rouge::tokens(call.summary.as_deref().unwrap_or_default()));
            one += rouge::one(&made, &human);
            longest += rouge::longest(&made, &human);
            length += made.len() as f64;
        }
        let count = calls.len() as f64;
        figures = (one / count, longest / count);
        println!("  {name:<18} {:.3} {:.3} {:>5.0}", figures.0, figures.1, length / count);
    }
    println!("  published for its test split: {:.3}, {:.3} at best", floor.0, floor.1);
    figures.0 >= floor.0 && figures.1 >= floor.1
}

/// The embedded provider's own summary.
fn summary(call: &Call) -> serde_json::Value {
    let transcript = Transcript { turns: call.turns.clone() };
    let answer =
        local::answer(Some(local::Method::Extract), &ChatRequest::default(), Some(&transcript)).expect("an answer");
    serde_json::from_str(answer.text()).expect("JSON")
}

fn headline(call: &Call) -> String {
    summary(call)["headline"].as_str().expect("a headline").to_owned()
}

fn points(call: &Call) -> String {
    let value = summary(call);
    let points = value["points"].as_array().expect("points").iter();
    points.map(|point| point["text"].as_str().expect("text")).collect::<Vec<_>>().join(" ")
}
