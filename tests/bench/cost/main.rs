//! What the analyses of a call cost, in tokens as vendors count them, beside a script that sends the whole transcript for
//! each question after each turn; and how many bytes of prompts leave the daemon.
//!
//! Everything runs on a virtual clock through the library's own triggers, windows, requests and cache planner: no socket, no
//! model. The prompt cache is a stand-in that keeps the bytes of marked prefixes and reads one only if the next prompt
//! begins with it byte by byte. Answers are not made: their lengths are the constants below. Digests of turns that leave
//! the window have the desired length, come after a few seconds, and their requests are part of every figure. Tokens are
//! the library's estimate. An *input-equivalent* token costs as much as one of an ordinary prompt: read 0.1, written 1.25, output 5.
//!
//! `cargo bench --bench cost`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    missing_docs,
    clippy::cast_precision_loss
)]

mod vendor;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sidetone::analysis::trigger::Trigger;
use sidetone::analysis::{Analysis, Asked, Facts, Prompt, Registry, digest, request};
use sidetone::context::tokens::estimate;
use sidetone::context::{Claim, Context, Digests, Source, Window, digest_tokens};
use sidetone::llm::ChatRequest;
use sidetone::types::{CallId, JsonMap, StreamId, Turn};

use self::vendor::{Vendor, texts};

/// The analyses, with the tokens of a whole answer and of one that contains only changes. A whole summary has 8 points
/// and 5 quotes, whole action items are 6; a change is one point or item in every second answer. Sentiment has no
/// items.
const ANALYSES: [(&str, u64, u64); 3] = [("summary", 330, 60), ("sentiment", 120, 120), ("action_items", 240, 30)];
const LENGTHS: [u64; 4] = [50, 200, 600, 1_500];
/// Target ratios for a floor of 1,024 tokens.
const AIMS: [f64; 4] = [5.0, 10.0, 20.0, 40.0];
/// How long a digest takes, ms.
const DIGEST_MS: u64 = 5_000;

fn main() {
    let registry = Registry::builtin();
    let questions: Vec<Question> = ANALYSES.iter().map(|(name, ..)| Question::new(&registry, name)).collect();
    costs(&questions);
    bytes(&questions[0]);
    times(&questions);
}

/// An analysis that is asked, and a sample value with about the right number of tokens.
struct Question {
    analysis: Arc<Analysis>,
    prompt: Arc<Prompt>,
    current: Value,
}

impl Question {
    fn new(registry: &Registry, name: &str) -> Self {
        let analysis = Arc::clone(registry.get(name).unwrap_or_else(|| panic!("no analysis {name}")));
        let prompt = analysis.prompt(None).expect("a prompt");
        let whole = ANALYSES.iter().find(|(known, ..)| *known == name).map_or(0, |(_, whole, _)| *whole);
        // A member's name and its quotation marks take about five tokens.
        let points: Vec<Value> = (0..whole / 25).map(|_| json!({"text": "word ".repeat(18)})).collect();
        Self { analysis, prompt, current: json!(points) }
    }

    fn asked(&self) -> Asked<'_> {
        Asked { analysis: &self.analysis, prompt: &self.prompt, current: Some(&self.current), last: false, due: true }
    }
}

/// A conversation of two people: text, start and end of each turn. The same for the same number.
struct Talk {
    state: u64,
    now_ms: u64,
}

impl Talk {
    fn new() -> Self {
        Self { state: 7, now_ms: 0 }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % limit
    }

    /// Most turns are short and some are long: 15 words on average.
    fn turn(&mut self, number: u64) -> Arc<Turn> {
        let words = match self.below(10) {
            0..3 => 1 + self.below(4),
            3..8 => 6 + self.below(14),
            _ => 20 + self.below(30),
        };
        let text: Vec<&str> = (0..words)
            .map(|_| ["the", "account", "please", "number", "because", "order", "is", "delivered", "today", "we"])
            .map(|known| known[usize::try_from(self.below(10)).expect("small")])
            .collect();
        let start_ms = self.now_ms + 200 + self.below(1_500);
        self.now_ms = start_ms + words * 350;
        Arc::new(Turn {
            turn: number,
            stream_id: StreamId::parse("s_1").expect("id"),
            turn_order: number,
            vendor_turn: None,
            rev: 0,
            speaker: Some(if number.is_multiple_of(2) { "agent" } else { "customer" }.to_owned()),
            text: text.join(" "),
            start_ms,
            end_ms: self.now_ms,
            language: None,
            confidence: None,
            words: Vec::new(),
        })
    }
}

/// A call whose analyses are asked together whenever one of them is due.
struct Call<'a> {
    questions: &'a [Question],
    triggers: Vec<Trigger>,
    context: Context,
    window: Window,
    digests: Digests,
    /// The turns of the digest that is being made, and when it is there.
    making: Option<(u64, Range<u64>)>,
    /// Requests for digests, with the tokens of their answers.
    asked: Vec<(ChatRequest, u64)>,
    facts: Facts,
    turns: Vec<Arc<Turn>>,
}

impl<'a> Call<'a> {
    fn new(questions: &'a [Question], window: Window) -> Self {
        let triggers = questions.iter().map(|question| Trigger::new(&question.analysis.settings.triggers)).collect();
        let facts = Facts {
            call_id: CallId::parse("c_1").expect("id"),
            meta: JsonMap::new(),
            speakers: JsonMap::new(),
            turn: None,
        };
        Self {
            questions,
            triggers,
            context: Context::new(),
            window,
            digests: Digests::default(),
            making: None,
            asked: Vec::new(),
            facts,
            turns: Vec::new(),
        }
    }

    /// Takes the digest that is there by now, and asks for the next one. Returns how far the window may grow meanwhile.
    fn compact(&mut self, now_ms: u64) -> Option<u64> {
        let budget = self.window.budget();
        let tokens = digest_tokens(budget);
        if let Some((_, turns)) = self.making.take_if(|(at, _)| *at <= now_ms) {
            let source = Source::new(&self.context, turns.clone()).expect("turns with text");
            // A claim has about 25 tokens.
            let claims =
                turns.step_by(usize::try_from((source.turns.end - source.turns.start) * 25 / tokens + 1).expect("few"));
            let claims = claims.map(|turn| Claim { text: "word ".repeat(18), turns: vec![turn] });
            let digest = source.digest(claims.collect(), tokens * 2).expect("a digest");
            self.asked.last_mut().expect("it was asked for").1 = digest.tokens() * 3 / 2;
            self.digests.add(Arc::new(digest));
        }
        if self.making.is_none() {
            let verbatim = self.window.leaves(&self.context, &self.digests)?;
            let turns = self.digests.next(&self.context, budget, verbatim)?;
            let snapshot = self.context.snapshot_of(turns.clone());
            self.asked.push((digest::request(&snapshot, &self.facts, tokens), 0));
            self.making = Some((now_ms + DIGEST_MS, turns));
        }
        Some(budget.saturating_add(budget / 4))
    }

    /// Adds a turn; one turn in 50 also revises the speaker of the turn three before it.
    fn turn(&mut self, turn: &Arc<Turn>) {
        self.context.upsert(turn);
        self.turns.push(Arc::clone(turn));
        if turn.turn % 50 == 49 {
            let mut revised = Turn::clone(&self.turns[self.turns.len() - 4]);
            revised.speaker = Some("supervisor".to_owned());
            self.context.upsert(&Arc::new(revised));
        }
        let tokens = self.context.tokens(turn.turn);
        self.triggers.iter_mut().for_each(|trigger| trigger.on_turn(turn.end_ms, tokens));
    }

    /// When one of the analyses is due, if that is not after `now_ms`.
    fn due(&mut self, now_ms: u64) -> Option<u64> {
        let due = self.triggers.iter().filter_map(Trigger::next_deadline).min().filter(|due| *due <= now_ms)?;
        self.triggers.iter_mut().any(|trigger| trigger.poll(due).is_some()).then(|| {
            self.triggers.iter_mut().for_each(|trigger| trigger.ran(due));
            due
        })
    }

    /// The request at this time, ms.
    fn request(&mut self, now_ms: u64, last: bool) -> ChatRequest {
        let most = self.compact(now_ms);
        let snapshot = if last {
            self.context.snapshot_final_over(&mut self.window, &self.digests)
        } else {
            self.context.snapshot_over(&mut self.window, &self.digests, most)
        };
        let asked: Vec<Asked<'_>> = self.questions.iter().map(Question::asked).collect();
        let mut request = request::request(&asked, &snapshot, &self.facts).expect("a request");
        request.caching.as_mut().expect("a shared prefix").last = last;
        request
    }
}

/// Sends a call with this many turns to a vendor, at the analyses' own triggers, with the last run.
fn ours(questions: &[Question], turns: u64, vendor: &mut Vendor) {
    let budget = questions.iter().map(|question| question.analysis.settings.max_context_tokens).max().expect("one");
    let mut call = Call::new(questions, Window::new(budget));
    let mut talk = Talk::new();
    let changed = ANALYSES.iter().map(|(.., changed)| changed).sum::<u64>();
    for number in 0..turns {
        let turn = talk.turn(number);
        while let Some(due) = call.due(turn.end_ms) {
            vendor.ask(&call.request(due, false), due, changed);
        }
        call.turn(&turn);
    }
    let end_ms = talk.now_ms + 1_000;
    // The last run waits for the digests that it needs.
    let mut now_ms = end_ms;
    while call.compact(now_ms).is_some() {
        now_ms += DIGEST_MS;
    }
    call.asked.iter().for_each(|asked| vendor.ask_once(asked));
    vendor.ask(&call.request(now_ms, true), end_ms, ANALYSES.iter().map(|(_, whole, _)| whole).sum());
}

/// The whole transcript for each question after each turn, and the whole answer each time.
fn naive(questions: &[Question], turns: u64) -> f64 {
    let mut call = Call::new(questions, Window::new(u64::MAX));
    let empty = call.request(0, false);
    let (before, blocks) = texts(&empty);
    // All questions' instructions and schemas are in one prompt here; each prompt of the script has those of one
    // question.
    let fixed = estimate(&before) + blocks.iter().map(|block| estimate(&block.text)).sum::<u64>();
    let currents = questions.iter().map(|question| estimate(&question.current.to_string())).sum::<u64>();
    let fixed = (fixed - currents) as f64;
    let mut talk = Talk::new();
    let (mut lines, mut cost) = (0, 0.0);
    for number in 0..turns {
        call.turn(&talk.turn(number));
        lines += call.context.tokens(number);
        let output: u64 = ANALYSES.iter().map(|(_, whole, _)| whole).sum();
        cost += fixed + (lines * questions.len() as u64) as f64 + output as f64 * vendor::OUTPUT;
    }
    cost
}

fn costs(questions: &[Question]) {
    println!("input-equivalent tokens of summary, sentiment and action_items, thousands (times less than naive)");
    println!(
        "{:>6} {:>10} {:>17} {:>17} {:>17} {:>17} {:>6}",
        "turns", "naive", "floor 512", "1024", "4096", "no cache", "aim"
    );
    for (turns, aim) in LENGTHS.into_iter().zip(AIMS) {
        let naive = naive(questions, turns);
        print!("{turns:>6} {:>10.0}", naive / 1e3);
        for floor in [Some(512), Some(1_024), Some(4_096), None] {
            let mut vendor = Vendor::new(floor);
            ours(questions, turns, &mut vendor);
            print!(" {:>9.1} ({:>4.1}x)", vendor.cost / 1e3, naive / vendor.cost);
        }
        println!(" {aim:>5.0}x");
    }
    println!("\nfor a floor of 1024: per turn, requests, and the share of the input that was read from the cache");
    for turns in LENGTHS {
        let mut vendor = Vendor::new(Some(1_024));
        ours(questions, turns, &mut vendor);
        let share = 100.0 * vendor.read as f64 / vendor.input as f64;
        println!("{turns:>6} {:>8.0} {:>6} {share:>5.0} %", vendor.cost / turns as f64, vendor.requests);
    }
}

fn bytes(question: &Question) {
    println!(
        "\nbytes of prompts of one analysis after each of 300 turns, kB (a script that resends the transcript: first)"
    );
    let mut total = 0;
    let mut context = Context::new();
    let mut talk = Talk::new();
    for number in 0..300 {
        context.upsert(&talk.turn(number));
        let snapshot = context.snapshot(&mut Window::new(u64::MAX));
        total += snapshot.parts().map(|part| part.len()).sum::<usize>();
    }
    println!("{:>20} {:>8.0}", "script", total as f64 / 1e3);
    for budget in [16_000, 8_000, 2_000, 1_000, 500] {
        let mut call = Call::new(std::slice::from_ref(question), Window::new(budget));
        let mut talk = Talk::new();
        let (mut sent, mut stable, mut requests) = (0, 0, 0);
        let mut before = String::new();
        for number in 0..300 {
            call.turn(&talk.turn(number));
            let request = call.request(talk.now_ms, false);
            let prompt: String = request.messages.iter().map(|message| message.content.plain()).collect();
            let shared = prompt.bytes().zip(before.bytes()).take_while(|(one, other)| one == other).count();
            stable += shared;
            sent += prompt.len();
            before = prompt;
        }
        for (request, _) in &call.asked {
            requests += request.messages.iter().map(|message| message.content.plain().len()).sum::<usize>();
        }
        println!(
            "{:>20} {:>8.0}   {:.0} % of it as in the prompt before; {:.0} more for {} digests",
            format!("window of {budget}"),
            sent as f64 / 1e3,
            100.0 * stable as f64 / sent as f64,
            requests as f64 / 1e3,
            call.asked.len()
        );
    }
}

fn times(questions: &[Question]) {
    println!("\nsnapshot and prompt of one trigger, us: mean of each fifth of a call of 1,500 turns, every 4 turns");
    for (name, budget) in [("window of 16000", 16_000), ("no window", u64::MAX)] {
        let mut call = Call::new(questions, Window::new(budget));
        let mut talk = Talk::new();
        let mut spent: Vec<Duration> = Vec::new();
        for number in 0..1_500 {
            call.turn(&talk.turn(number));
            if number % 4 == 3 {
                let began = Instant::now();
                std::hint::black_box(call.request(talk.now_ms, false));
                spent.push(began.elapsed());
            }
        }
        let fifths = spent.chunks(spent.len().div_ceil(5)).map(|fifth| {
            let mean = fifth.iter().sum::<Duration>() / u32::try_from(fifth.len()).expect("few");
            format!("{:>6.0}", mean.as_secs_f64() * 1e6)
        });
        println!("{name:>20} {}", fifths.collect::<Vec<_>>().join(" "));
    }
}
