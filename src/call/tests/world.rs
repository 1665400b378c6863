//! One run: a call, its producers, models, readers and disk, and the events that happen to them, drawn from the seed.

use std::path::Path;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use super::checks::Checks;
use super::disk::{Disk, Stored};
use super::driver::Flight;
use super::models::{Manners, Models};
use super::producer::Producer;
use super::random::Random;
use super::script::{self, Naming};
use crate::analysis::{Question, Registry};
use crate::base::settings::Problems;
use crate::call::config::{IngestConfig, LimitsConfig};
use crate::call::input::Input;
use crate::call::{Call, Settings};
use crate::rules::Rules;
use crate::types::{CallId, EndScope, StreamId};

/// How often each fault happens, per 1000 steps, and how the run is set up.
pub(super) struct Knobs {
    pub(super) commits_at_once: u64,
    pub(super) append_fails: u64,
    pub(super) resends: u64,
    pub(super) local: bool,
    /// Set if analyses are asked together where that is possible.
    pub(super) bundles: bool,
    pub(super) crashes: u64,
    pub(super) stops: u64,
    pub(super) drops: u64,
    pub(super) takes_over: u64,
    pub(super) by_hand: u64,
    /// Steps per 1000 at which the disk becomes full for a while.
    pub(super) fills: u64,
    /// Maximum time that passes in a step, ms.
    pub(super) pace_ms: u64,
}

/// A reader that follows the durable log at its own pace.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) read: Vec<Stored>,
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) knobs: Knobs,
    settings: Arc<Settings>,
    pub(super) now_ms: u64,
    /// When the call was loaded: the call's own clock begins there.
    pub(super) loaded_ms: u64,
    pub(super) call: Option<Call>,
    pub(super) disk: Disk,
    pub(super) full_until_ms: u64,
    /// The durable log, as readers get it.
    pub(super) log: Vec<Stored>,
    pub(super) readers: Vec<Reader>,
    pub(super) flight: Option<Flight>,
    pub(super) producers: Vec<Producer>,
    pub(super) models: Models,
    pub(super) checks: Checks,
    pub(super) peers: u64,
    /// Since when no producer is connected and all streams have ended or were replaced.
    ended_since_ms: Option<u64>,
    pub(super) per_turn: bool,
    pub(super) tracing: bool,
}

/// Sets of analyses, made once: reading prompts and schemas takes longer than a run.
fn registries() -> &'static [(Arc<Registry>, bool)] {
    static REGISTRIES: OnceLock<Vec<(Arc<Registry>, bool)>> = OnceLock::new();
    REGISTRIES.get_or_init(|| {
        let configs = [
            (
                "[summary]\nevery_n_turns = 1\ndebounce_ms = 0\n\
                 [sentiment]\non = [\"silence\", \"speech_started\"]\non_end = false\n",
                false,
            ),
            (
                "[summary]\nevery_n_turns = 2\ndebounce_ms = 300\nmax_wait_ms = 900\nmax_context_tokens = 300\n\
                 [sentiment_turn]\n",
                true,
            ),
            (
                "[summary]\nevery_n_turns = 1\ndebounce_ms = 0\non_revision = \"refuse\"\nmax_context_tokens = 150\n\
                 [sentiment]\ninterval_ms = 500\nmax_context_tokens = 150\n",
                false,
            ),
            ("[sentiment_turn]\n[sentiment]\nmax_context_tokens = 256\nevery_n_turns = 1\non_end = false\n", true),
        ];
        let read = |(config, per_turn): (&str, bool)| {
            let mut problems = Problems::default();
            let table: toml::Table = config.parse().expect("toml");
            let registry = Registry::read(Some(toml::Value::Table(table)), Path::new("."), &mut problems);
            assert_eq!(problems.into_vec().len(), 0, "{config}");
            (Arc::new(registry), per_turn)
        };
        configs.into_iter().map(read).collect()
    })
}

/// What a producer asks about its turns.
fn question() -> &'static Arc<Question> {
    static QUESTION: LazyLock<Arc<Question>> = LazyLock::new(|| {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"{{turn}} {{transcript}} {{summary}}"}]}"#;
        Arc::new(Question::read(body).expect("a question"))
    });
    &QUESTION
}

/// Sets of rules: no rule, and rules of every kind. Their words are those of the scripts, and their values are those of
/// the models.
fn rule_sets() -> &'static [Arc<Rules>] {
    static SETS: OnceLock<Vec<Arc<Rules>>> = OnceLock::new();
    SETS.get_or_init(|| {
        let configs = [
            "",
            "[word]\nkind = \"keyword\"\nany = [\"w2\", \"/w[0-9]*7/\"]\nruns = [\"summary\"]\n\
             [by_a]\nkind = \"keyword\"\nany = [\"/w/\"]\nspeaker = \"A\"\n\
             [quiet]\nkind = \"silence\"\nover_ms = 400\n\
             [late]\nkind = \"absence\"\nany = [\"w3\"]\nwithin_ms = 300\n",
            "[mood]\nkind = \"insight\"\nanalysis = \"summary\"\nat = \"/score\"\nbelow = 5\n\
             [low]\nkind = \"insight\"\nanalysis = \"sentiment_turn\"\nat = \"/score\"\nbelow = 7\nfor_ms = 200\n\
             [of_stream]\nkind = \"absence\"\nany = [\"/w[0-9]*1/\"]\nwithin_ms = 1000\nof = \"stream\"\n\
             [after]\nkind = \"absence\"\nany = [\"/w[0-9]*5/\"]\nwithin_ms = 150\nafter = \"word\"\n\
             [word]\nkind = \"keyword\"\nany = [\"/w[0-9]*3/\"]\nspeaker = \"R1\"\n\
             [both]\nkind = \"overlap\"\nover_ms = 100\n",
        ];
        let read = |config: &str| {
            let mut problems = Problems::default();
            let table: toml::Table = config.parse().expect("toml");
            let rules = Rules::read(Some(toml::Value::Table(table)), &mut problems);
            assert_eq!(problems.into_vec().len(), 0, "{config}");
            Arc::new(rules)
        };
        configs.into_iter().map(read).collect()
    })
}

fn ms(random: &mut Random, of: &[u64]) -> Duration {
    Duration::from_millis(random.pick(of))
}

impl World {
    pub(super) fn new(seed: u64, tracing: bool) -> Self {
        let mut random = Random::new(seed);
        let (analyses, per_turn) = registries()[random.index(registries().len())].clone();
        let mut problems = Problems::default();
        let ingest = IngestConfig {
            idle_timeout: ms(&mut random, &[2_000, 30_000, 300_000]),
            linger: ms(&mut random, &[0, 500, 2_000]),
            max_silence: ms(&mut random, &[5_000, 600_000]),
            final_timeout: ms(&mut random, &[0, 1_000, 30_000]),
            held: ms(&mut random, &[100, 1_000, 5_000]),
            ..IngestConfig::read(None, &mut problems)
        };
        let rules = Arc::clone(&rule_sets()[random.index(rule_sets().len())]);
        let limits = LimitsConfig {
            alerts_per_call: random.pick(&[3, 1_000]),
            alert_pause: ms(&mut random, &[0, 0, 700]),
            ..LimitsConfig::read(None, &mut problems)
        };
        let default_analyses = analyses.defaults();
        let knobs = Knobs {
            commits_at_once: random.pick(&[0, 500, 1_000]),
            append_fails: random.pick(&[0, 0, 50, 400]),
            resends: random.pick(&[0, 300]),
            local: random.chance(300),
            bundles: random.chance(800),
            crashes: random.pick(&[0, 5, 30]),
            stops: random.pick(&[0, 0, 10]),
            drops: random.pick(&[0, 20, 100]),
            takes_over: random.pick(&[0, 0, 50]),
            by_hand: random.pick(&[0, 10, 50]),
            fills: random.pick(&[0, 0, 10]),
            pace_ms: random.pick(&[10, 300, 2_000]),
        };
        let manners = Manners {
            permits: random.pick(&[1, 2, 8]),
            latency_ms: random.pick(&[5, 300, 10_000]),
            failing: random.pick(&[0, 200, 800]),
            nobody: random.pick(&[0, 0, 300]),
            breaking: random.pick(&[0, 0, 300]),
        };
        let mut next_word = 0;
        let producers = (0..=random.below(3))
            .map(|number| {
                let naming = random.pick(&[Naming::Order, Naming::Vendor, Naming::Held, Naming::Held]);
                let ends = random.pick(&[None, Some(EndScope::Stream), Some(EndScope::Stream), Some(EndScope::Call)]);
                let turns = 2 + random.below(12);
                let script = script::write(naming, turns, &mut next_word, ends, &mut random);
                let asks = naming == Naming::Vendor && random.chance(300);
                let question = asks.then(|| Arc::clone(question()));
                Producer::new(StreamId::parse(&format!("s_{number}")).expect("id"), naming, script, question)
            })
            .collect();
        let call_id = CallId::parse("c_1").expect("id");
        let mut world = Self {
            random,
            knobs,
            checks: Checks::new(&call_id, &limits),
            settings: Arc::new(Settings { analyses, default_analyses, rules, ingest, limits }),
            now_ms: 0,
            loaded_ms: 0,
            call: None,
            disk: Disk::default(),
            full_until_ms: 0,
            log: Vec::new(),
            readers: (0..2).map(|_| Reader::default()).collect(),
            flight: None,
            producers,
            models: Models::new(manners),
            peers: 0,
            ended_since_ms: None,
            per_turn,
            tracing,
        };
        world.load(false);
        world
    }

    /// The daemon loads the call from what the disk has.
    pub(super) fn load(&mut self, overdue: bool) {
        self.log = self.disk.recover();
        let log = self.checks.restarted(&self.log);
        self.loaded_ms = self.now_ms;
        self.ended_since_ms = None;
        let mut random = Random::new(self.random.next());
        let entropy = Box::new(move || u128::from(random.next()) << 64 | u128::from(random.next()));
        let (settings, now) = (Arc::clone(&self.settings), self.now());
        self.call = Some(Call::new(settings, log, self.disk.entry.as_ref(), overdue, entropy, now));
        self.settle();
    }

    /// The process is killed.
    pub(super) fn crash(&mut self) {
        let flight = self.flight.take();
        self.disk.crash(flight.as_ref().map(|flight| &flight.batch), &mut self.random);
        self.leave();
        let overdue = self.random.chance(100);
        self.load(overdue);
    }

    /// All producers disconnect, and no model is asked any more.
    pub(super) fn leave(&mut self) {
        self.call = None;
        self.models.abort_all();
        self.models.aborted.clear();
        for producer in &mut self.producers {
            producer.cut_off();
        }
    }

    /// A shutdown: producers are told to disconnect, tasks may finish, then the remaining ones are aborted.
    pub(super) fn stop(&mut self) {
        self.input(Input::Stop);
        for index in 0..self.producers.len() {
            while !self.producers[index].connections.is_empty() {
                self.detach(index);
            }
        }
        if self.random.chance(500)
            && let Some(task) = self.models.running.keys().next().copied()
        {
            self.answer(task);
        }
        self.input(Input::Kill);
        self.settle();
        for _ in 0..50 {
            if self.flight.is_none() {
                break;
            }
            self.now_ms += 1_000;
            if self.append() {
                self.settle();
            }
        }
        assert!(self.call.as_ref().expect("a call in memory").tasks.out.is_empty(), "a task outlives the daemon");
        self.disk.crash(self.flight.take().as_ref().map(|flight| &flight.batch), &mut self.random);
        self.leave();
        self.load(false);
    }

    /// Stores when the call began to wait only for its linger time and its final runs.
    pub(super) fn note_ends(&mut self) {
        let log = &self.call.as_ref().expect("a call in memory").log;
        let ended = !log.streams.is_empty() && log.streams.iter().all(|stream| stream.ended || stream.replaced);
        let alone =
            self.producers.iter().all(|producer| producer.attaching.is_none() && producer.connections.is_empty());
        self.ended_since_ms = (ended && alone).then(|| self.ended_since_ms.unwrap_or(self.now_ms));
    }

    /// The timers were checked: a call whose streams have all ended must not stay open.
    pub(super) fn is_over_in_time(&self) {
        /// A shutdown, or an input that waits in the queue, may take this long.
        const SLACK: Duration = Duration::from_secs(5);
        let ingest = &self.settings.ingest;
        let most = u64::try_from((ingest.linger + ingest.final_timeout + SLACK).as_millis()).expect("short");
        let late = self.ended_since_ms.is_some_and(|since| self.now_ms > since + most);
        let open = self.call.as_ref().expect("a call in memory").is_open();
        assert!(!(late && open), "all streams have ended, and the call stays open");
    }

    pub(super) fn disk_is_full(&self) -> bool {
        self.now_ms < self.full_until_ms
    }

    pub(super) fn log_bytes(&self) -> Vec<u8> {
        self.disk.bytes().to_vec()
    }

    /// Runs `steps` steps, then lets the call end.
    pub(super) fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
            // All inputs that wait in the queue are handled together.
            if self.random.chance(700) {
                self.settle();
            }
            self.read();
        }
        self.settle();
        self.end();
    }
}
