//! An alert: what a rule says about a call.
//!
//! Knows no rule and no condition.

use serde::{Deserialize, Serialize};

use super::TurnNo;

/// How much an alert matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody must act.
    Critical,
}

impl Severity {
    /// All names, in order of weight.
    pub const NAMES: [&'static str; 3] = ["info", "warning", "critical"];

    /// The severity's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The severity with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Info, Self::Warning, Self::Critical].into_iter().find(|severity| severity.as_str() == name)
    }
}

/// What a rule raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Alert {
    /// Unique within the call: `a_1`, `a_2`, …
    pub id: String,
    /// Name of the rule.
    pub rule: String,
    pub severity: Severity,
    /// The message from the rule's configuration, for people.
    pub message: String,
    /// The turn that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<TurnNo>,
    /// Words of that turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<String>,
}

/// An alert whose condition no longer holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClearedAlert {
    /// The id that it was raised with.
    pub id: String,
    /// Name of the rule.
    pub rule: String,
}

/// An alert that is open, as snapshots and `GET /v1/calls/{id}` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OpenAlert {
    #[serde(flatten)]
    pub alert: Alert,
    /// When it was raised, RFC 3339, UTC.
    pub at: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severity_reads_back_from_its_name() {
        for name in Severity::NAMES {
            assert_eq!(Severity::parse(name).map(Severity::as_str), Some(name));
        }
        assert_eq!(Severity::parse("loud"), None);
    }

    #[test]
    fn open_alert_has_the_members_of_its_alert_and_its_time() {
        let alert = Alert {
            id: "a_1".into(),
            rule: "churn".into(),
            severity: Severity::Critical,
            message: "m".into(),
            turn: None,
            quote: None,
        };
        let open = OpenAlert { alert, at: "t".into() };
        let text = serde_json::to_string(&open).expect("json");
        assert_eq!(text, r#"{"id":"a_1","rule":"churn","severity":"critical","message":"m","at":"t"}"#);
        assert_eq!(serde_json::from_str::<OpenAlert>(&text).expect("json"), open);
    }
}
