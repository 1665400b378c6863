//! `sidetone usage`: shows how the LLMs were used, and the cost.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::out::{self, say};
use super::target::{DEFAULT_LISTEN, Target};
use super::{fetch, table};

/// Options of `sidetone usage`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone usage                                             by endpoint, for all time
  sidetone usage --group-by route,variant --from 2026-01-01
  sidetone usage --group-by day,vendor_model --format csv > bill.csv
  sidetone usage --changes --from 2026-01-01                 changes of prices, routes and keys")]
pub(crate) struct UsageArgs {
    /// Address of the daemon
    #[arg(long, value_name = "URL", env = "SIDETONE_URL", default_value = DEFAULT_LISTEN)]
    to: Target,
    /// Group by these: endpoint, route, variant, model, vendor_model, key, call, analysis, outcome, code, why, status,
    /// number, request, hour, day, month; or none
    #[arg(long, value_name = "NAMES", default_value = "endpoint")]
    group_by: String,
    /// Start with this day or time (UTC)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// End before this day or time (UTC)
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
    /// Show changes of endpoints, models, routes, prices and keys instead of sums
    #[arg(long, conflicts_with = "group_by")]
    changes: bool,
    /// Output format
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
/// The daemon does not answer, or answers with an error.
pub(crate) async fn run(args: UsageArgs) -> Result<ExitCode> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("group_by", if args.changes { "none" } else { &args.group_by });
    if args.changes {
        query.append_pair("changes", "true");
    }
    for (name, value) in [("from", &args.from), ("to", &args.before)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let Some(answer) = fetch::get(&args.to, &format!("/v1/usage?{}", query.finish())).await? else {
        bail!("{} has no /v1/usage", args.to);
    };
    if args.format == Format::Json {
        say!("{answer}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let groups = args.group_by.split(',').map(str::trim).filter(|group| !matches!(*group, "" | "none"));
    let groups: Vec<&str> = groups.collect();
    let items = |name: &str| answer.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let (lines, texts) = match args.changes {
        true => (changes(items("changes")), 4),
        false => (lines(&groups, items("rows"), args.format == Format::Csv), groups.len()),
    };
    match args.format {
        Format::Csv => lines.iter().try_for_each(|line| say!("{}", csv(line)))?,
        _ => out::lines(&table::draw(&lines, texts))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The text of a cell: empty for null, never zero.
fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A header, then one line per change.
fn changes(changes: &[Value]) -> Vec<Vec<String>> {
    let mut lines = vec![["at", "kind", "name", "detail"].map(str::to_owned).to_vec()];
    for change in changes {
        let gone = change.get("detail").is_none_or(Value::is_null);
        let mut line = ["at", "kind", "name"].map(|key| text(change.get(key))).to_vec();
        line.push(if gone { "gone".to_owned() } else { text(change.get("detail")) });
        lines.push(line);
    }
    lines
}

/// Dollars: six decimal places for people, up to twelve for programs.
fn dollars(cost: f64, exact: bool) -> String {
    if !exact {
        return format!("{cost:.6}");
    }
    let text = format!("{cost:.12}");
    let short = text.trim_end_matches('0');
    // At least two decimal places, as money is written.
    text[..short.len().max(text.len() - 10)].to_owned()
}

/// A header, then one line per row.
fn lines(groups: &[&str], rows: &[Value], exact: bool) -> Vec<Vec<String>> {
    let numbers = ["attempts", "input", "cached", "cache_write", "output", "reasoning", "cost_usd", "unpriced"];
    let head = groups.iter().copied().chain(numbers);
    let mut lines = vec![head.map(str::to_owned).collect::<Vec<_>>()];
    for row in rows {
        let mut line: Vec<String> = groups.iter().map(|group| text(row.get(group))).collect();
        line.push(text(row.get("attempts")));
        line.extend(
            ["input", "cached", "cache_write", "output", "reasoning"]
                .map(|kind| text(row.pointer(&format!("/tokens/{kind}")))),
        );
        line.push(row.get("cost_usd").and_then(Value::as_f64).map_or_else(String::new, |cost| dollars(cost, exact)));
        line.push(text(row.get("unpriced")));
        lines.push(line);
    }
    lines
}

/// A line of CSV, by RFC 4180.
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
        let lines = lines(&["route"], &rows, true);
        assert_eq!(csv(&lines[0]), "route,attempts,input,cached,cache_write,output,reasoning,cost_usd,unpriced");
        assert_eq!(csv(&lines[1]), "\"a,b\",3,5,,,1,,,3");
    }

    #[test]
    fn programs_get_the_last_place_of_a_cost() {
        for (cost, shown, exact) in [
            (0.001_183_500_001, "0.001184", "0.001183500001"),
            (1e-12, "0.000000", "0.000000000001"),
            (12.5, "12.500000", "12.50"),
            (0.0, "0.000000", "0.00"),
        ] {
            assert_eq!((dollars(cost, false).as_str(), dollars(cost, true).as_str()), (shown, exact));
        }
    }
}
