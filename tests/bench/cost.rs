//! What the analyses of a call cost, in tokens as vendors count them, beside a script that sends the whole transcript for
//! each question after each turn; and how many bytes of prompts leave the daemon.
//!
//! Everything runs on a virtual clock through the library's own triggers, windows, requests and cache planner: no socket, no
//! model. The prompt cache is a stand-in that keeps the bytes of marked prefixes and reads one only if the next prompt
//! begins with it byte by byte. Answers are not made: their lengths are the constants below. Tokens are the library's
//! estimate. An *input-equivalent* token costs as much as one of an ordinary prompt: read 0.1, written 1.25, output 5.
//!
//! `cargo bench --bench cost`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, clippy::cast_precision_loss)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sidetone::analysis::trigger::Trigger;
use sidetone::analysis::{Analysis, Asked, Facts, Prompt, Registry, request};
use sidetone::context::tokens::estimate;
use sidetone::context::{Context, Window};
use sidetone::llm::{Before, Block, ChatRequest, Content, Layout, PromptCache, ResponseFormat};
use sidetone::types::{CallId, JsonMap, StreamId, Turn};

/// The analyses, with the tokens of a whole answer and of one that contains only changes. A whole summary has 8 points
/// and 5 quotes, whole action items are 6; a change is one point or item in every second answer. Sentiment has no
/// items.
const ANALYSES: [(&str, u64, u64); 3] = [("summary", 330, 60), ("sentiment", 120, 120), ("action_items", 240, 30)];
const LENGTHS: [u64; 4] = [50, 200, 600, 1_500];
/// Target ratios for a floor of 1,024 tokens.
const AIMS: [f64; 4] = [5.0, 10.0, 20.0, 40.0];
const OUTPUT: f64 = 5.0;
const CACHE: PromptCache = PromptCache { floor_tokens: 0, ttl_ms: 300_000, write: 1.25, read: 0.1, marked: true };

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
        Self { questions, triggers, context: Context::new(), window, facts, turns: Vec::new() }
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

    fn request(&mut self, last: bool) -> ChatRequest {
        let snapshot =
            if last { self.context.snapshot_final(&mut self.window) } else { self.context.snapshot(&mut self.window) };
        let asked: Vec<Asked<'_>> = self.questions.iter().map(Question::asked).collect();
        let mut request = request::request(&asked, &snapshot, &self.facts).expect("a request");
        request.caching.as_mut().expect("a shared prefix").last = last;
        request
    }
}

/// The texts of a prompt in order: the schema, which vendors put first, the messages' texts, and the blocks.
fn texts(request: &ChatRequest) -> (String, Vec<&Block>) {
    let Some(ResponseFormat::JsonSchema { schema, .. }) = &request.response_format else { panic!("a schema") };
    let mut before = schema.to_string();
    for message in &request.messages {
        match &message.content {
            Content::Blocks(blocks) => return (before, blocks.iter().collect()),
            content => before.push_str(&content.plain()),
        }
    }
    panic!("a prompt in blocks")
}

/// A vendor's cache for one call: the prefixes that were marked, and when each was last used.
struct Vendor {
    rules: Option<PromptCache>,
    kept: Vec<(String, u64)>,
    before: Option<Before>,
    asked_ms: Option<u64>,
    cost: f64,
    requests: u64,
    read: u64,
    input: u64,
}

impl Vendor {
    fn new(floor_tokens: Option<u64>) -> Self {
        let rules = floor_tokens.map(|floor_tokens| PromptCache { floor_tokens, ..CACHE });
        Self { rules, kept: Vec::new(), before: None, asked_ms: None, cost: 0.0, requests: 0, read: 0, input: 0 }
    }

    fn ask(&mut self, request: &ChatRequest, now_ms: u64, output: u64) {
        let (before, blocks) = texts(request);
        let mut ends = Vec::new();
        let mut prompt = before;
        for block in blocks {
            prompt.push_str(&block.text);
            ends.push(prompt.len());
        }
        let tokens = |bytes: usize| estimate(&prompt[..bytes]);
        let input = tokens(prompt.len());
        let (mut read, mut written) = (0, 0);
        if let Some(rules) = &self.rules {
            let age_ms = self.asked_ms.map(|asked| now_ms - asked);
            let known = self.before.zip(age_ms).map(|(before, age_ms)| Before { age_ms, ..before });
            let layout = Layout::of(request).expect("a shared prefix");
            let plan = rules.plan(&layout, known, request.caching.as_ref().is_some_and(|caching| caching.last));
            self.kept.retain(|(_, used)| now_ms - used <= rules.ttl_ms);
            for mark in [plan.marks.read, plan.marks.write].into_iter().flatten() {
                let prefix = &prompt[..ends[mark]];
                if let Some((_, used)) = self.kept.iter_mut().find(|(kept, _)| kept == prefix) {
                    *used = now_ms;
                    read = read.max(tokens(ends[mark]));
                } else if tokens(ends[mark]) >= rules.floor_tokens {
                    self.kept.push((prefix.to_owned(), now_ms));
                    written = tokens(ends[mark]);
                }
            }
            self.before = Some(Before { bytes: plan.keeps, age_ms: 0, gap_ms: age_ms });
            self.asked_ms = Some(now_ms);
        }
        let written = written.saturating_sub(read);
        let fresh = input - read - written;
        self.cost += fresh as f64 + read as f64 * CACHE.read + written as f64 * CACHE.write + output as f64 * OUTPUT;
        self.requests += 1;
        self.read += read;
        self.input += input;
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
            vendor.ask(&call.request(false), due, changed);
        }
        call.turn(&turn);
    }
    vendor.ask(&call.request(true), talk.now_ms + 1_000, ANALYSES.iter().map(|(_, whole, _)| whole).sum());
}

/// The whole transcript for each question after each turn, and the whole answer each time.
fn naive(questions: &[Question], turns: u64) -> f64 {
    let mut call = Call::new(questions, Window::new(u64::MAX));
    let empty = call.request(false);
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
        cost += fixed + (lines * questions.len() as u64) as f64 + output as f64 * OUTPUT;
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
        let (mut sent, mut stable) = (0, 0);
        let mut before = String::new();
        for number in 0..300 {
            call.turn(&talk.turn(number));
            let request = call.request(false);
            let prompt: String = request.messages.iter().map(|message| message.content.plain()).collect();
            let shared = prompt.bytes().zip(before.bytes()).take_while(|(one, other)| one == other).count();
            stable += shared;
            sent += prompt.len();
            before = prompt;
        }
        println!(
            "{:>20} {:>8.0}   {:.0} % of it as in the prompt before",
            format!("window of {budget}"),
            sent as f64 / 1e3,
            100.0 * stable as f64 / sent as f64
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
                std::hint::black_box(call.request(false));
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
