//! The subjects: each kind of input, handled by the code that handles it in the daemon.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use sidetone::analysis::{Analysis, Facts, READING, Registry};
use sidetone::base::budget::{Budget, Exceeded};
use sidetone::base::settings::Problems;
use sidetone::config::Config;
use sidetone::context::{Context, Window};
use sidetone::llm::repair::{self, REPAIRING};
use sidetone::llm::schema::{CHECKING, SchemaError, Validator, compiling_work};
use sidetone::stt::DIALECTS;
use sidetone::transcript as files;
use sidetone::types::{CallId, JsonMap, StreamId, Turn};

use super::Case;
use super::generate::{self, answer as hostile_answer, count, number, once_in, pick, spoil, text, value};
use super::meter::Spent;
use crate::support::{Chance, Json, json};

/// A typed refusal names its limit.
fn named(exceeded: Exceeded) {
    assert!(matches!(exceeded, Exceeded::Limit(bound) if bound.most > 0), "{exceeded:?}");
}

fn checked(schema: &Json, answers: &[String]) -> Spent {
    // Compiling counts no steps: a schema's limits bound it. Its cost is estimated from the schema's size.
    let mut steps = compiling_work(schema).min(1_000_000);
    match Validator::compile(schema) {
        Err(SchemaError::TooComplex(exceeded)) => named(exceeded),
        Err(_) => {}
        Ok(validator) => {
            for answer in answers {
                let mut budget = Budget::new(CHECKING);
                if let Err(exceeded) = validator.check(answer, &mut budget) {
                    named(exceeded);
                }
                assert!(budget.bytes() <= 2 * CHECKING.bytes.most);
                steps += budget.steps().min(CHECKING.steps.most);
            }
        }
    }
    Spent { steps }
}

pub(super) fn schema(chance: &mut Chance) -> Case {
    let schema = generate::schema(chance);
    let answers: Vec<String> = (0..3).map(|_| hostile_answer(chance).to_string()).collect();
    Box::new(move || checked(&schema, &answers))
}

pub(super) fn pattern(chance: &mut Chance) -> Case {
    let patterns: Vec<Json> =
        (0..1 + count(chance, 100)).map(|_| json!({"pattern": generate::pattern(chance, 4)})).collect();
    let schema = json!({"anyOf": patterns, "patternProperties": {generate::pattern(chance, 3): true}});
    let answers: Vec<String> =
        (0..2).map(|_| json!([text(chance, 20_000), {text(chance, 500): 1}]).to_string()).collect();
    let schema = json!({ "items": schema });
    Box::new(move || checked(&schema, &answers))
}

pub(super) fn repair(chance: &mut Chance) -> Case {
    let mut broken = String::new();
    for _ in 0..1 + chance.below(6) {
        broken.push_str(&text(chance, 60_000));
        let whole = value(chance, 500).to_string();
        let cut = (0..=chance.below(whole.len() + 1)).rev().find(|at| whole.is_char_boundary(*at)).unwrap_or(0);
        broken.push_str(&whole[..cut]);
    }
    Box::new(move || {
        let mut budget = Budget::new(REPAIRING);
        if let Err(exceeded) = repair::parse(&broken, &mut budget) {
            named(exceeded);
        }
        Spent { steps: budget.steps() }
    })
}

pub(super) fn turns(chance: &mut Chance, most: usize) -> Vec<Arc<Turn>> {
    let stream_id = StreamId::parse("s_1").expect("id");
    let said = text(chance, 2_000);
    (0..count(chance, most) as u64)
        .map(|turn| {
            Arc::new(Turn {
                turn,
                stream_id: stream_id.clone(),
                turn_order: turn,
                vendor_turn: None,
                rev: 0,
                speaker: Some(text(chance, 20)),
                text: if once_in(chance, 3) { said.clone() } else { text(chance, 500) },
                start_ms: number(chance).as_u64().unwrap_or(turn),
                end_ms: turn,
                language: None,
                confidence: None,
                words: Vec::new(),
            })
        })
        .collect()
}

pub(super) fn evidence(chance: &mut Chance) -> Case {
    let mut context = Context::new();
    for turn in turns(chance, 2_000) {
        context.upsert(&turn);
    }
    let snapshot = context.snapshot(&mut Window::new(u64::MAX));
    let quotes: Vec<Json> =
        (0..count(chance, 300)).map(|at| json!({"turn": at, "quote": text(chance, 300) + "one two three"})).collect();
    let answer =
        if once_in(chance, 2) { json!({ "evidence": quotes }) } else { json!({"items": [{"deeper": quotes}]}) };
    Box::new(move || {
        let mut budget = Budget::new(READING);
        if let Err(exceeded) = Analysis::read(answer, &snapshot, &mut budget) {
            named(exceeded);
        }
        Spent { steps: budget.steps() }
    })
}

/// A folder for input that must be read from files.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().expect("folder")).path()
}

fn template(chance: &mut Chance, depth: usize) -> String {
    let leaves =
        ["{{ meta }}", "{{ meta.a.b }}", "{{ turns }}", "{{ meta.a ~ meta.a }}", "{{ range(9999) | join }}", "x"];
    if depth == 0 {
        return (*pick(chance, &leaves)).to_owned();
    }
    let inner = template(chance, depth - 1);
    match chance.below(6) {
        0 => format!("{{% for x{depth} in range({}) %}}{inner}{{% endfor %}}", chance.below(20_000)),
        1 => format!("{{% for x{depth} in meta.a %}}{inner}{{% endfor %}}"),
        2 => format!(
            "{{% set x{depth} = \"{}\" * {} %}}{inner}",
            text(chance, 20).replace(['"', '\\'], ""),
            chance.below(1_000_000)
        ),
        3 => format!("{{% macro m{depth}() %}}{inner}{{% endmacro %}}{{{{ m{depth}() }}}}{{{{ m{depth}() }}}}"),
        4 => inner.repeat(count(chance, 500)),
        _ => format!("{{% if meta.a %}}{inner}{{% endif %}}"),
    }
}

pub(super) fn prompt(chance: &mut Chance) -> Case {
    let dir = folder().join("own");
    std::fs::create_dir_all(&dir).expect("folder");
    let source = format!("{{{{ transcript }}}}{}", template(chance, 4));
    std::fs::write(dir.join("v1.j2"), &source).expect("prompt");
    let schema = if once_in(chance, 2) { generate::schema(chance).to_string() } else { "{}".to_owned() };
    std::fs::write(dir.join("schema.json"), schema).expect("schema");
    let config: toml::Table = format!("[own]\ndir = {:?}\n", dir.display().to_string()).parse().expect("TOML");
    let mut context = Context::new();
    for turn in turns(chance, 50) {
        context.upsert(&turn);
    }
    let mut meta = JsonMap::new();
    meta.insert("a".to_owned(), value(chance, 2_000));
    let facts = Facts { call_id: CallId::parse("c_1").expect("id"), meta, speakers: JsonMap::new(), turn: None };
    let snapshot = context.snapshot(&mut Window::default());
    Box::new(move || {
        let registry = Registry::read(Some(toml::Value::Table(config)), folder(), &mut Problems::default());
        let Some(own) = registry.get("own") else { return Spent::default() };
        if let Err(error) = own.request(&own.prompt(None).expect("prompt"), &snapshot, &facts) {
            assert!(!error.message.is_empty(), "{error:?}");
        }
        Spent::default()
    })
}

pub(super) fn config(chance: &mut Chance) -> Case {
    let mut lines = String::new();
    for section in 0..1 + count(chance, 200) {
        let headings =
            ["limits", "server", "endpoints.e", "models.m", "routes.r", "analyses.summary", "stt", "ingest", "gateway"];
        let heading = pick(chance, &headings);
        let number_it = heading.contains('.') && once_in(chance, 2);
        lines.push_str(&if number_it { format!("[{heading}{section}]\n") } else { format!("[{heading}]\n") });
        for _ in 0..chance.below(6) {
            let keys = [
                "candidates",
                "variants",
                "base_url",
                "provider",
                "listen",
                "hosts",
                "prices",
                "dir",
                "connections",
                "x",
            ];
            let value = toml::Value::try_from(value(chance, 200)).unwrap_or(toml::Value::Boolean(true));
            lines.push_str(&format!("{} = {value}\n", pick(chance, &keys)));
        }
    }
    Box::new(move || {
        if let Err(problems) = Config::parse(&lines, folder()) {
            assert!(problems.iter().all(|problem| problem.message.len() < 100_000), "a problem is said in few words");
        }
        Spent::default()
    })
}

/// A transcript file: parts of all formats, each repeated, read in every format and in the detected one.
pub(super) fn file(chance: &mut Chance) -> Case {
    const PARTS: [&str; 20] = [
        "WEBVTT\n\n",
        "00:01.000 --> 00:02.000\n",
        "1\n00:00:01,000 --> 00:00:02,000\n",
        "NOTE x\n",
        "<v Ann>",
        "<c.a><00:01.000>",
        "&amp;&",
        "<<{\\",
        "Ann: one two three\n",
        "[Ann] 10:00:00\n",
        "Ann Lee  0:15  \n",
        "[0:15] Ann (0:16): so\n",
        "10:00:00\tFrom Ann to Bob:",
        "- a\n-b\n",
        ">> ",
        "{\"spokenText\":\"a\"}\n",
        ": ",
        "\n",
        "\r",
        "\u{feff}",
    ];
    let mut text = String::new();
    for _ in 0..1 + count(chance, 30) {
        let times = 1 + count(chance, 20_000);
        text.push_str(&pick(chance, &PARTS).repeat(times));
        if once_in(chance, 3) {
            text.push_str(&self::text(chance, 50_000));
        }
    }
    Box::new(move || {
        let formats = files::FORMATS.iter().copied().map(Some).chain(std::iter::once(None));
        for format in formats {
            if let Err(error) = files::read(text.as_bytes(), format) {
                assert!(error.line > 0 && error.message.len() < 2_000, "{error}");
            }
        }
        Spent::default()
    })
}

/// The default of `ingest.max_frame_bytes`.
const MAX_FRAME_BYTES: usize = 1 << 20;

pub(super) fn frame(chance: &mut Chance) -> Case {
    let dialect = pick(chance, DIALECTS);
    let good: Json = serde_json::from_str(dialect.example()).expect("an example");
    let frames: Vec<String> = (0..4)
        .map(|_| {
            let mut frame = good.clone();
            for _ in 0..1 + chance.below(3) {
                spoil(chance, &mut frame);
            }
            frame.to_string()
        })
        // Longer frames are refused before they are read.
        .filter(|frame| frame.len() <= MAX_FRAME_BYTES)
        .collect();
    Box::new(move || {
        let mut decoder = dialect.open();
        let mut events = Vec::new();
        for frame in &frames {
            let _ = decoder.decode(frame, &mut events);
        }
        decoder.finish(&mut events);
        Spent::default()
    })
}
