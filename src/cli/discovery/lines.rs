//! The configuration lines that use the models found.

use std::fmt::Write as _;

use super::vendors::{PRICES_OF, VENDORS};
use super::{Found, ollama};
use crate::types::provider::LOCAL;

/// The configuration that uses all of `found`, in that order, and the embedded provider if all of them fail. Empty if
/// nothing was found.
pub(crate) fn configuration(found: &[Found]) -> String {
    configuration_with(found, "")
}

/// The configuration that uses all of `found`, with additional keys of the model.
pub(crate) fn configuration_with(found: &[Found], more: &str) -> String {
    let endpoints: String = found.iter().map(|found| endpoint(found) + "\n").collect();
    if found.is_empty() { endpoints } else { endpoints + &routing(found, more) }
}

/// Lines of configuration with the same names of model and route, and only the embedded provider behind them.
pub(crate) fn configuration_of_local() -> String {
    routing(&[], "")
}

/// The model and the route over `found`; `more` contains additional keys of the model.
fn routing(found: &[Found], more: &str) -> String {
    let mut candidates: Vec<String> = found.iter().map(|found| quoted(&found.candidate())).collect();
    candidates.push(quoted(LOCAL));
    let clocks = if found.iter().any(|found| found.slow) {
        "header_timeout_ms = 30000               # a model on this machine may have to be loaded first\n\
         first_token_timeout_ms = 30000\ntotal_timeout_ms = 60000\n"
    } else {
        ""
    };
    format!(
        "[models.default]\ncandidates = [{}]   # in failover order; local is the embedded provider\n{clocks}{more}\n\
         [routes.live]\nvariants = [{{ name = \"a\", model = \"default\" }}]\n\n\
         [gateway]\ndefault_route = \"live\"                  # asked by analyses that name no route\n",
        candidates.join(", ")
    )
}

/// A whole configuration file: the models found are in use, and everything else is commented out.
pub(crate) fn template(found: &[Found]) -> String {
    let known =
        VENDORS.iter().map(super::vendors::Vendor::endpoint).chain([ollama::endpoint(None, ollama::EXAMPLE_MODEL)]);
    let mut text = String::from(
        "# Sidetone's configuration. `sidetone check --config FILE` reads it without starting anything, and\n\
         # `sidetone serve --config FILE` starts the daemon with it. config/sidetone.toml of the project shows every key.\n\
         # A key is never written here: it is \"env:VARIABLE\" or \"file:PATH\".\n\n\
         [server]\n\
         # key = \"env:SIDETONE_SERVER_KEY\"   # one key with every scope; default: none, and loopback only\n\n\
         [storage]\n\
         # dir = \"~/.local/state/sidetone/journal\"   # default: $XDG_STATE_HOME/sidetone/journal, else this\n\n\
         [journal]\n\
         # retention_days = 30                       # days after its end at which a call is erased; 0 = never\n\n\
         [limits]\n\
         # usd_per_call = 0.50             # US dollars that models may cost for one call; default: no cap, as for\n\
         # usd_per_day = 100.0             # US dollars in a day of UTC, all calls and clients together\n\n\
         # ---- Endpoints: where models are asked. What was not found when this file was written is commented out.\n\n",
    );
    for vendor in known {
        match found.iter().find(|found| found.name == vendor.name) {
            Some(found) => text.push_str(&endpoint(found)),
            None => text.push_str(&commented(&endpoint(&vendor))),
        }
        text.push('\n');
    }
    text.push_str(
        "# ---- The model that analyses ask: its endpoints in failover order. Without it, `local` answers.\n\n",
    );
    if found.is_empty() {
        let example: Vec<Found> = VENDORS.iter().take(1).map(super::vendors::Vendor::endpoint).collect();
        text.push_str(&commented(&routing(&example, "")));
    } else {
        text.push_str(&routing(found, ""));
    }
    text
}

fn endpoint(found: &Found) -> String {
    let mut text = format!("[endpoints.{0}]\nprovider = {1}\n", found.name, quoted(found.name));
    // Writing to a String cannot fail.
    if let Some(url) = &found.base_url {
        let from = found.redirected_by.map_or(String::new(), |variable| format!("   # from {variable}"));
        let _ = writeln!(text, "base_url = {}{from}", quoted(url));
    }
    if let Some(variable) = found.key {
        let _ = writeln!(text, "api_key = {}", quoted(&format!("env:{variable}")));
    }
    if let Some(price) = found.price {
        let model = quoted(&found.model);
        let note = if price.input + price.output > 0.0 {
            format!("   # US dollars a million tokens, list of {PRICES_OF}")
        } else {
            String::new()
        };
        let (input, output) = (price.input, price.output);
        let _ = writeln!(text, "prices = [{{ model = {model}, input = {input:?}, output = {output:?} }}]{note}");
    }
    text
}

fn commented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("# {line}\n") }).collect()
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
