//! `sidetone usage`: what the LLMs were used for, and what it cost.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::fetch;
use super::target::{DEFAULT_LISTEN, Target};

/// Options of `sidetone usage`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone usage                                             by endpoint, since ever
  sidetone usage --group-by route,variant --from 2026-01-01
  sidetone usage --group-by day,vendor_model --format csv > bill.csv")]
pub(crate) struct UsageArgs {
    /// The daemon
    #[arg(long, value_name = "URL", default_value = DEFAULT_LISTEN)]
    to: Target,
    /// Of endpoint, route, variant, model, vendor_model, key, call, analysis, outcome, code, why, day; or none
    #[arg(long, value_name = "NAMES", default_value = "endpoint")]
    group_by: String,
    /// From this day or time on (UTC)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Before this day or time (UTC)
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
    /// How it is shown
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
}

/// Runs the command.
///
/// # Errors
/// The daemon does not answer, or not well.
pub(crate) async fn run(args: UsageArgs) -> Result<ExitCode> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("group_by", &args.group_by);
    for (name, value) in [("from", &args.from), ("to", &args.before)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let Some(answer) = fetch::get(&args.to, &format!("/v1/usage?{}", query.finish())).await? else {
        bail!("{} has no /v1/usage", args.to);
    };
    if args.format == Format::Json {
        anstream::println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    let groups: Vec<&str> =
        if args.group_by == "none" { Vec::new() } else { args.group_by.split(',').map(str::trim).collect() };
    let rows = answer.get("rows").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let lines = lines(&groups, rows);
    match args.format {
        Format::Csv => lines.iter().for_each(|line| anstream::println!("{}", csv(line))),
        _ => anstream::print!("{}", super::table::draw(&lines, groups.len())),
    }
    Ok(ExitCode::SUCCESS)
}

/// A head, then a line a row.
fn lines(groups: &[&str], rows: &[Value]) -> Vec<Vec<String>> {
    let head = groups.iter().copied().chain(["attempts", "input", "cached", "output", "cost_usd", "unpriced"]);
    let mut lines = vec![head.map(str::to_owned).collect::<Vec<_>>()];
    for row in rows {
        let text = |value: Option<&Value>| match value {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let mut line: Vec<String> = groups.iter().map(|group| text(row.get(group))).collect();
        line.push(text(row.get("attempts")));
        line.extend(["input", "cached", "output"].map(|kind| text(row.pointer(&format!("/tokens/{kind}")))));
        line.push(row.get("cost_usd").and_then(Value::as_f64).map_or_else(String::new, |cost| format!("{cost:.6}")));
        line.push(text(row.get("unpriced")));
        lines.push(line);
    }
    lines
}

/// RFC 4180.
fn csv(line: &[String]) -> String {
    let quoted = line.iter().map(|cell| {
        if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.clone() }
    });
    quoted.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_as_csv_leave_unknown_empty() {
        let rows = [
            json!({"route":"a,b","attempts":3,"tokens":{"input":5,"cached":null,"output":1},"cost_usd":null,"unpriced":3}),
        ];
        let lines = lines(&["route"], &rows);
        assert_eq!(csv(&lines[0]), "route,attempts,input,cached,output,cost_usd,unpriced");
        assert_eq!(csv(&lines[1]), "\"a,b\",3,5,,1,,3");
    }
}
