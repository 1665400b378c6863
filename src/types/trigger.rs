//! Why a job ran: an insight's `trigger`.
//!
//! Knows no rule and no clock: `analysis::trigger` decides when an analysis is due.

use serde::{Deserialize, Serialize};

macro_rules! triggers {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a job ran; a text on the wire.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum Trigger {
            $($(#[$doc])* $name,)*
            /// An alert made the analysis due; the name of its rule, if known.
            Alert(Option<String>),
            /// A reason of a later version.
            Other(String),
        }

        impl From<String> for Trigger {
            fn from(text: String) -> Self {
                match text.as_str() {
                    $($text => Self::$name,)*
                    "alert" => Self::Alert(None),
                    _ => match text.strip_prefix("alert:") {
                        Some(rule) => Self::Alert(Some(rule.to_owned())),
                        None => Self::Other(text),
                    },
                }
            }
        }

        impl From<Trigger> for String {
            fn from(trigger: Trigger) -> Self {
                match trigger {
                    $(Trigger::$name => $text.to_owned(),)*
                    Trigger::Alert(None) => "alert".to_owned(),
                    Trigger::Alert(Some(rule)) => format!("alert:{rule}"),
                    Trigger::Other(text) => text,
                }
            }
        }
    };
}

triggers! {
    /// New turns made the analysis due, without a debounce.
    Turns = "turns",
    /// The interval made the analysis due, without a debounce.
    Interval = "interval",
    /// No turn has ended for `debounce_ms`.
    Debounce = "debounce",
    /// The analysis has waited `max_wait_ms`.
    MaxWait = "max_wait",
    /// A silence made it due.
    Silence = "silence",
    /// The beginning of speech made it due.
    SpeechStarted = "speech_started",
    /// The correction of a turn on which the newest insight rests made it due.
    Revision = "revision",
    /// The previous task failed, and its wait is over.
    Retry = "retry",
    /// Somebody asked for the analysis.
    Manual = "manual",
    /// The call ends.
    End = "end",
    /// A turn became final, and the analysis is per turn.
    Turn = "turn",
    /// Another analysis of the same bundle ran.
    Bundle = "bundle",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_read_back_as_they_are_written() {
        for text in
            ["turns", "max_wait", "manual", "bundle", "alert", "alert:churn", "alert:", "of_a_later_version", ""]
        {
            let trigger = Trigger::from(text.to_owned());
            assert_eq!(String::from(trigger.clone()), text, "{trigger:?}");
            assert_eq!(serde_json::to_string(&trigger).expect("JSON"), format!("{text:?}"));
        }
        assert_eq!(Trigger::from("manual".to_owned()), Trigger::Manual);
        assert_eq!(Trigger::from("alert:churn".to_owned()), Trigger::Alert(Some("churn".to_owned())));
    }
}
