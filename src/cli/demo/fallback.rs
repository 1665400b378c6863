//! Reports that the embedded provider answered instead of the model, and why. Decides when the demo stops asking the
//! model.

use std::cell::Cell;

use serde_json::Value;
use tokio::sync::Notify;

use crate::cli::fetch;
use crate::cli::target::Target;
use crate::protocol::event::Kind;
use crate::types::{Outcome, provider};

use super::model::Chosen;

/// Watches the insights for one that did not come from the model.
pub(super) struct Fallback<'a> {
    chosen: Option<&'a Chosen>,
    /// A fallback that was noticed and not reported yet.
    news: Cell<Option<News>>,
    /// The last one that was reported.
    said: Cell<Option<News>>,
    notify: Notify,
}

/// What happened to a request that the model did not answer; the later variant is the worse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    /// The embedded provider answered.
    FellBack,
    /// No provider answered: the model used up all the time.
    Failed,
}

/// The sentence to show, and whether to stop asking the model.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Explanation {
    pub(super) sentence: String,
    pub(super) give_up: bool,
}

impl<'a> Fallback<'a> {
    /// `chosen`: the model that is expected to answer, if any is.
    pub(super) fn watch(chosen: Option<&'a Chosen>) -> Self {
        Self { chosen, news: Cell::new(None), said: Cell::new(None), notify: Notify::new() }
    }

    /// Looks at a frame of the call.
    pub(super) fn frame(&self, frame: &Value) {
        let news = match Kind::from_type(frame["type"].as_str().unwrap_or_default()) {
            Kind::InsightUpdated if is_from_local(&frame["insight"]) => News::FellBack,
            Kind::InsightFailed => News::Failed,
            _ => return,
        };
        if self.chosen.is_some() && Some(news) > self.said.get() {
            self.news.set(self.news.get().max(Some(news)));
            self.notify.notify_one();
        }
    }

    /// Resolves when there may be something to explain; never if nothing happens.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn seen(&self) {
        self.notify.notified().await;
    }

    /// The explanation that is due now; `None` = nothing is.
    ///
    /// # Cancel safety
    /// Safe: if it is cancelled, the next call returns the explanation.
    pub(super) async fn explanation(&self, target: &Target) -> Option<Explanation> {
        let chosen = self.chosen?;
        let news = self.news.get().filter(|news| Some(*news) > self.said.get())?;
        let reason = match fetch::get(target, "/v1/usage?group_by=endpoint,outcome,code,status").await {
            Ok(Some(usage)) => reason(&usage, chosen.found.name, chosen.cap),
            Ok(None) | Err(_) => "(for an unknown reason)".to_owned(),
        };
        self.said.set(Some(news));
        let model = chosen.found.candidate();
        Some(match news {
            News::FellBack => Explanation {
                sentence: format!("{model} did not answer {reason}; the embedded provider (local) answered instead"),
                give_up: false,
            },
            News::Failed => Explanation {
                sentence: format!(
                    "{model} does not answer in time {reason}; from now on the embedded provider (local) does"
                ),
                give_up: true,
            },
        })
    }
}

/// Returns true for an insight that the embedded provider made.
fn is_from_local(insight: &Value) -> bool {
    insight["provenance"]["endpoint"].as_str().is_some_and(provider::is_local)
}

/// Why requests to the endpoint had no answer, from the ledger's sums.
fn reason(usage: &Value, endpoint: &str, cap: Option<f64>) -> String {
    let failed: Vec<String> = usage["rows"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|row| row["endpoint"] == endpoint && row["outcome"] != Outcome::Ok.as_str())
        .filter_map(|row| {
            let code = row["code"].as_str()?;
            // The ledger returns the values of its groups as text.
            let status = row["status"].as_str().map_or(String::new(), |status| format!(" with HTTP {status}"));
            Some(format!("{code}{status}"))
        })
        .collect();
    match (failed.is_empty(), cap) {
        (false, _) => format!("({})", failed.join(", ")),
        (true, Some(cap)) if cap > 0.0 => format!("(it was not asked: the rest of {cap:.3} USD is not enough)"),
        (true, _) => "(it was not asked)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reason_names_code_and_status_and_else_the_cap() {
        let usage = json!({"rows": [
            {"endpoint": "openai", "outcome": "ok", "code": null, "status": "200"},
            {"endpoint": "openai", "outcome": "failed", "code": "upstream_auth", "status": "401"},
            {"endpoint": "openai", "outcome": "failed", "code": "timeout", "status": null},
            {"endpoint": "other", "outcome": "failed", "code": "rate_limited", "status": "429"}]});
        assert_eq!(reason(&usage, "openai", None), "(upstream_auth with HTTP 401, timeout)");
        assert_eq!(
            reason(&json!({"rows": []}), "openai", Some(0.05)),
            "(it was not asked: the rest of 0.050 USD is not enough)"
        );
        assert_eq!(reason(&json!(null), "openai", None), "(it was not asked)");
    }
}
