//! The report as one HTML page, which loads nothing and runs no script. Knows no file system.

mod call;
mod chart;
mod figures;
mod text;

use std::fmt::Write as _;

use self::text::escaped;
use super::report::Report;
use crate::cli::screen::clock;

const STYLE: &str = include_str!("style.css");
/// If there are more calls than this, each call is shown collapsed.
const MAX_OPEN: usize = 3;
/// Content security policy: the page may load and run nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

pub(super) fn page(report: &Report) -> String {
    let names: Vec<&str> = report.variants.iter().map(|info| info.name.as_str()).collect();
    let title = escaped(&format!("{} compared", names.join(" and ")));
    let length_ms: u64 = report.calls.iter().map(|call| call.length_ms).sum();
    let turns: usize = report.calls.iter().map(|call| call.turns).sum();
    let calls = match report.calls.len() {
        1 => "1 call".to_owned(),
        count => format!("{count} calls"),
    };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"robots\" content=\"noindex\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<header><h1>{title}</h1>\
         <p class=\"facts\">{calls} · {} of talk · {turns} turns · on a virtual clock</p><ul class=\"variants\">",
        clock(length_ms)
    );
    for (index, info) in report.variants.iter().enumerate() {
        let (colour, name, what) = (chart::colour(index), escaped(&info.name), escaped(&info.what));
        let _ = write!(out, "<li><span class=\"who {colour}\">{name}</span> {what}</li>");
    }
    out.push_str("</ul></header>\n<main>\n<section><h2>In short</h2>");
    out.push_str(&figures::headlines(report));
    out.push_str("</section>\n<section><h2>All figures</h2>");
    out.push_str(&figures::totals(report));
    out.push_str("<details><summary>What the figures mean</summary>");
    out.push_str(&figures::meanings());
    out.push_str(
        "<p>The intervals are of 95 %, by bootstrap over the calls. A difference is called better or worse where its \
         interval does not hold 0; with one call there is no interval.</p></details></section>\n<section><h2>Calls</h2>\n",
    );
    let open = report.calls.len() <= MAX_OPEN;
    for call in &report.calls {
        out.push_str(&call::section(call, &report.variants, open));
        out.push('\n');
    }
    out.push_str("</section>\n</main>\n</body>\n</html>\n");
    out
}

#[cfg(test)]
mod tests;
