//! `sidetone models`: lists every name that the gateway knows; with `--probe`, checks that each endpoint answers.
//!
//! Asks a running daemon; with `--config`, it builds a gateway of its own from a configuration instead, which has the
//! same names.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::out::{self, say};
use super::target::{DEFAULT_LISTEN, Target};
use super::{fetch, settings, table};
use crate::api::models::document;
use crate::gateway::{Gateway, Metrics, Request};
use crate::llm::{ChatRequest, Message, Role};

/// Options of `sidetone models`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone models                            routes, models, and the vendors' models behind them
  sidetone models --probe                    asks each configured model of each endpoint for one token
  sidetone models --probe --config new.toml  the same without a daemon, before the file is installed")]
pub(crate) struct ModelsArgs {
    /// Address of the daemon
    #[arg(long, value_name = "URL", env = "SIDETONE_URL", default_value = DEFAULT_LISTEN)]
    to: Target,
    /// List the models of this configuration without a daemon, whatever --to or SIDETONE_URL contains
    #[arg(long, value_name = "FILE", value_parser = super::absolute())]
    config: Option<PathBuf>,
    /// Ask each endpoint for one token: with each configured model, or with one model of its list
    #[arg(long)]
    probe: bool,
    /// Print JSON, as GET /v1/models returns it
    #[arg(long, conflicts_with = "probe")]
    json: bool,
}

/// The daemon or the gateway that is asked.
enum Source {
    Daemon(Target),
    Own(Gateway),
}

impl Source {
    async fn list(&self) -> Result<Value> {
        match self {
            Self::Daemon(target) => {
                fetch::get(target, "/v1/models").await?.ok_or_else(|| anyhow!("{target} has no /v1/models"))
            }
            Self::Own(gateway) => {
                gateway.list_now().await;
                Ok(document(gateway))
            }
        }
    }

    /// Asks a model for one token.
    async fn probe(&self, id: &str) -> Result<()> {
        const PROMPT: &str = "Say: ok";
        match self {
            Self::Daemon(target) => {
                let body = json!({"model": id, "max_tokens": 1, "messages": [{"role": "user", "content": PROMPT}]});
                fetch::post(target, "/v1/chat/completions", &body).await?;
            }
            Self::Own(gateway) => {
                let chat = ChatRequest {
                    messages: vec![Message::text(Role::User, PROMPT)],
                    max_tokens: Some(1),
                    ..ChatRequest::default()
                };
                gateway.complete(Request::new(gateway.resolve(id, "")?, chat)).await?;
            }
        }
        Ok(())
    }
}

/// Runs the command. Exit code 1 if a probe fails.
///
/// # Errors
/// The daemon does not answer, or answers with an error; the configuration is invalid.
pub(crate) async fn run(args: ModelsArgs) -> Result<ExitCode> {
    let source = match &args.config {
        None => Source::Daemon(args.to),
        Some(path) => Source::Own(Gateway::new(settings::load(Some(path))?.gateway, Metrics::default())?),
    };
    let answer = source.list().await?;
    if args.json {
        say!("{answer}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let items = |name: &str| answer.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut failed = 0;
    if args.probe {
        let probes = to_probe(items("data"));
        if probes.is_empty() {
            bail!(
                "no vendor's model is configured or listed: nothing can be probed; add models to [models.NAME] \
                 candidates or [endpoints.NAME] models"
            );
        }
        for id in probes {
            failed += u32::from(!probe(&source, id).await?);
        }
    } else {
        out::lines(&table::draw(&lines(items("data")), 3))?;
    }
    for model in items("data") {
        if let Some(warning) = model.get("warning").and_then(Value::as_str) {
            say!("{} {}: {warning}", "WARN".yellow(), text(model, "id"))?;
        }
    }
    for endpoint in items("endpoints") {
        if let Some(error) = endpoint.get("error").and_then(Value::as_str) {
            say!("{} {}: {error}", "WARN".yellow(), text(endpoint, "name"))?;
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text<'a>(item: &'a Value, key: &str) -> &'a str {
    item.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A header, then one line per name.
fn lines(models: &[Value]) -> Vec<Vec<String>> {
    let head = ["name", "kind", "candidates", "context", "$/M in", "$/M out"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for model in models {
        let number = |path: &str| {
            let number = model.pointer(path).filter(|number| number.is_number());
            number.map_or_else(String::new, ToString::to_string)
        };
        let candidates = model.get("candidates").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let candidates: Vec<&str> = candidates.iter().filter_map(Value::as_str).collect();
        let kind = text(model, "kind");
        let shown = if kind == "vendor" { String::new() } else { candidates.join(" > ") };
        let prices = ["/context_length", "/pricing/input", "/pricing/output"].map(number);
        lines.push([text(model, "id").to_owned(), kind.to_owned(), shown].into_iter().chain(prices).collect());
    }
    lines
}

/// The configured models of each endpoint; for an endpoint without any, the first of its list.
fn to_probe(models: &[Value]) -> Vec<&str> {
    let vendors = || models.iter().filter(|model| text(model, "kind") == "vendor");
    let configured = |model: &&Value| model.get("configured").and_then(Value::as_bool) != Some(false);
    let mut done: BTreeSet<&str> = vendors().filter(configured).map(|model| text(model, "owned_by")).collect();
    vendors().filter(|model| configured(model) || done.insert(text(model, "owned_by"))).map(|m| text(m, "id")).collect()
}

/// Probes a model and prints the result. Returns true if the model answered.
async fn probe(source: &Source, id: &str) -> Result<bool> {
    let began = Instant::now();
    let answered = source.probe(id).await;
    let took = began.elapsed().as_millis();
    match &answered {
        Ok(()) => say!("{} {id} {took} ms", "ok    ".green())?,
        Err(error) => say!("{} {id} {took} ms: {error:#}", "failed".red())?,
    }
    Ok(answered.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_is_probed_with_what_is_configured_else_with_one_of_its_list() {
        let model = |id: &str, kind: &str, configured: bool| {
            let owner = id.split('/').next().unwrap_or_default();
            json!({"id": id, "kind": kind, "owned_by": owner, "configured": configured})
        };
        let models = [
            model("route", "route", true),
            model("a/1", "vendor", false),
            model("a/2", "vendor", true),
            model("a/3", "vendor", true),
            model("b/1", "vendor", false),
            model("b/2", "vendor", false),
        ];
        assert_eq!(to_probe(&models), ["a/2", "a/3", "b/1"]);
    }
}
