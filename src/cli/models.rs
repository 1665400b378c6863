//! `sidetone models`: every name that the gateway knows; with `--probe`, whether it answers.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::fetch;
use super::table;
use super::target::{DEFAULT_LISTEN, Target};

/// Options of `sidetone models`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone models            routes, models, and the vendors' models behind them
  sidetone models --probe    asks each vendor's model for one token")]
pub(crate) struct ModelsArgs {
    /// The daemon
    #[arg(long, value_name = "URL", default_value = DEFAULT_LISTEN)]
    to: Target,
    /// Ask each vendor's model for one token
    #[arg(long)]
    probe: bool,
    /// As JSON, as GET /v1/models has it
    #[arg(long, conflicts_with = "probe")]
    json: bool,
}

/// Runs the command. Exit code 1 if a probe fails.
///
/// # Errors
/// The daemon does not answer, or not well.
pub(crate) async fn run(args: ModelsArgs) -> Result<ExitCode> {
    let Some(answer) = fetch::get(&args.to, "/v1/models").await? else { bail!("{} has no /v1/models", args.to) };
    if args.json {
        anstream::println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    let models = answer.get("data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |model: &Value, key: &str| model.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    if args.probe {
        let mut failed = 0;
        for model in models.iter().filter(|model| text(model, "kind") == "vendor") {
            failed += u32::from(!probe(&args.to, &text(model, "id")).await);
        }
        return Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut lines = vec![["NAME", "KIND", "CANDIDATES", "USD/M IN", "USD/M OUT"].map(str::to_owned).to_vec()];
    for model in models {
        let price = |key: &str| {
            let price = model.pointer(&format!("/pricing/{key}")).and_then(Value::as_f64);
            price.map_or_else(String::new, |price| price.to_string())
        };
        let candidates: Vec<&str> =
            model.get("candidates").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let kind = text(model, "kind");
        let shown = if kind == "vendor" { String::new() } else { candidates.join(" > ") };
        lines.push(vec![text(model, "id"), kind, shown, price("input"), price("output")]);
    }
    anstream::print!("{}", table::draw(&lines, 3));
    Ok(ExitCode::SUCCESS)
}

async fn probe(target: &Target, id: &str) -> bool {
    let body = json!({"model": id, "max_tokens": 1, "messages": [{"role": "user", "content": "Say: ok"}]});
    let began = Instant::now();
    let answered = fetch::post(target, "/v1/chat/completions", &body).await;
    let took = began.elapsed().as_millis();
    match answered {
        Ok(_) => anstream::println!("{} {id} {took} ms", "ok    ".green()),
        Err(ref error) => anstream::println!("{} {id} {took} ms: {error:#}", "failed".red()),
    }
    answered.is_ok()
}
