//! Says, once, that the model did not answer and the embedded provider did, and why.

use std::cell::Cell;

use serde_json::Value;
use tokio::sync::Notify;

use crate::cli::fetch;
use crate::cli::target::Target;

use super::model::Chosen;

/// Looks at the insights for one that the model did not give.
pub(super) struct Fallback<'a> {
    chosen: Option<&'a Chosen>,
    seen: Cell<bool>,
    explained: Cell<bool>,
    notify: Notify,
}

impl<'a> Fallback<'a> {
    /// `chosen`: the model that is expected to answer, if any is.
    pub(super) fn watch(chosen: Option<&'a Chosen>) -> Self {
        Self { chosen, seen: Cell::new(false), explained: Cell::new(false), notify: Notify::new() }
    }

    /// Looks at a frame of the call.
    pub(super) fn frame(&self, frame: &Value) {
        let local = frame["insight"]["provenance"]["endpoint"] == "local";
        if self.chosen.is_some() && frame["type"] == "insight.updated" && local && !self.seen.replace(true) {
            self.notify.notify_one();
        }
    }

    /// Resolves when the first such insight has come; never if none comes.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn seen(&self) {
        self.notify.notified().await;
    }

    /// The sentence to show, once; `None` where there is nothing to explain.
    ///
    /// # Cancel safety
    /// Safe: cancelled, the next call gives it.
    pub(super) async fn sentence(&self, target: &Target) -> Option<String> {
        let chosen = self.chosen.filter(|_| self.seen.get() && !self.explained.get())?;
        let reason = match fetch::get(target, "/v1/usage?group_by=endpoint,outcome,code,status").await {
            Ok(Some(usage)) => reason(&usage, chosen.found.name, chosen.cap),
            Ok(None) | Err(_) => "(for an unknown reason)".to_owned(),
        };
        self.explained.set(true);
        let model = chosen.found.candidate();
        Some(format!("{model} did not answer {reason}; the embedded provider (local) answered instead"))
    }
}

/// Why the newest request had no answer, from the ledger's sums.
fn reason(usage: &Value, endpoint: &str, cap: Option<f64>) -> String {
    let failed: Vec<String> = usage["rows"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|row| row["endpoint"] == endpoint && row["outcome"] != "ok")
        .filter_map(|row| {
            let code = row["code"].as_str()?;
            // The ledger's groups are text.
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
