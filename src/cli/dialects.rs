//! `sidetone dialects`: the STT wire formats that are supported, and how a file of frames is decoded.

use std::io::BufRead as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::out::say;
use crate::base::names;
use crate::stt::{self, DIALECTS, DecodeError, Dialect, Fit};
use crate::types::{SttEvent, TurnKey, Word};

/// If none of this many first frames was understood, another dialect is suggested.
const FIRST_FRAMES: usize = 5;

/// Options of `sidetone dialects`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone dialects                                  names, each with an example frame
  sidetone dialects deepgram --decode frames.jsonl   decodes frames, one per line
  sidetone dialects --json")]
pub(crate) struct DialectsArgs {
    /// Show only this dialect
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Decode a file of frames, one JSON object per line ("-" is standard input), and print one JSON line per frame
    #[arg(long, value_name = "FILE", requires = "name", value_parser = super::absolute())]
    decode: Option<PathBuf>,
    /// Print the list as JSON, as GET /v1/dialects returns it
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// The dialect does not exist, or the file cannot be read.
pub(crate) fn run(args: &DialectsArgs) -> Result<ExitCode> {
    let chosen: Vec<&'static dyn Dialect> = match &args.name {
        None => DIALECTS.to_vec(),
        Some(name) => match stt::dialect(name) {
            Some(dialect) => vec![dialect],
            None => {
                let known: Vec<&str> = DIALECTS.iter().map(|dialect| dialect.name()).collect();
                bail!("{}", names::unknown("dialect", name, &known));
            }
        },
    };
    if let (Some(path), [dialect]) = (&args.decode, chosen.as_slice()) {
        return decode(*dialect, path);
    }
    if args.json {
        let list: Vec<Value> = chosen
            .iter()
            .map(|dialect| {
                let example: Value = serde_json::from_str(dialect.example()).unwrap_or(Value::Null);
                json!({"name": dialect.name(), "names_turns": dialect.names_turns(), "needs": dialect.needs(), "example": example})
            })
            .collect();
        say!("{}", json!({ "dialects": list }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for dialect in chosen {
        say!("{}", dialect.name().bold())?;
        say!("  {}", dialect.example())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn decode(dialect: &dyn Dialect, path: &PathBuf) -> Result<ExitCode> {
    let input: Box<dyn std::io::BufRead> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        Box::new(std::io::BufReader::new(file))
    };
    let mut decoder = dialect.open();
    let (mut first, mut known) = (Vec::new(), false);
    for line in input.lines() {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        let mut events = Vec::new();
        let result = decoder.decode(&line, &mut events);
        known |= Fit::of(&result, &events, decoder.holding()).is_known();
        let said = match result {
            Ok(lost) => {
                let mut said =
                    json!({"events": events.iter().map(shown).collect::<Vec<_>>(), "holding": decoder.holding()});
                if !lost.is_empty() {
                    said["left_out"] = lost.iter().map(problem).collect();
                }
                said
            }
            Err(error) => json!({ "error": problem(&error) }),
        };
        say!("{said}")?;
        if first.len() < FIRST_FRAMES {
            first.push(line);
        }
    }
    if !known && !first.is_empty() {
        let frames: Vec<&str> = first.iter().map(String::as_str).collect();
        let bound = format!("{} frames", frames.len());
        eprintln!("{}", stt::not_understood(dialect, &bound, &frames));
    }
    let mut rest = Vec::new();
    decoder.finish(&mut rest);
    if !rest.is_empty() {
        say!("{}", json!({"events": rest.iter().map(shown).collect::<Vec<_>>(), "holding": false}))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn problem(error: &DecodeError) -> Value {
    json!({"code": error.code, "message": error.message})
}

fn key(key: &TurnKey) -> Value {
    match key {
        TurnKey::Order(order) => json!(order),
        TurnKey::Vendor(id) => json!(id),
        TurnKey::Next | TurnKey::Held(_) | TurnKey::Ended(_) => Value::Null,
    }
}

fn words(words: &[Word]) -> Value {
    serde_json::to_value(words).unwrap_or(Value::Null)
}

fn shown(event: &SttEvent) -> Value {
    match event {
        SttEvent::Begin { vendor_session } => json!({"begin": {"vendor_session": vendor_session}}),
        SttEvent::Restarted => json!({"restarted": {}}),
        SttEvent::Partial { key: turn, speaker, text } => {
            json!({"partial": {"turn": key(turn), "speaker": speaker, "text": text}})
        }
        SttEvent::Final(turn) => json!({"final": {
            "turn": key(&turn.key), "formatted": turn.formatted, "text": turn.text, "speaker": turn.speaker,
            "start_ms": turn.start_ms, "end_ms": turn.end_ms, "language": turn.language,
            "confidence": turn.confidence, "words": words(&turn.words),
        }}),
        SttEvent::Revise(turn) => json!({"revise": {
            "turn": key(&turn.key), "speaker": turn.speaker, "text": turn.text, "words": words(&turn.words),
        }}),
        SttEvent::MergeSpeakers { from, to } => json!({"merge_speakers": {"from": from, "to": to}}),
        SttEvent::Meta(meta) => json!({ "meta": meta }),
        SttEvent::End { reason, scope } => json!({"end": {"reason": reason, "scope": scope}}),
        SttEvent::VendorError { code, message } => json!({"vendor_error": {"code": code, "message": message}}),
        SttEvent::SpeechStarted => json!({"speech_started": {}}),
        SttEvent::Silence { span } => json!({"silence": {"span_ms": span}}),
        SttEvent::Dialect { name } => json!({"dialect": name}),
        SttEvent::Unknown { kind } => json!({"unknown": {"type": kind}}),
    }
}
