//! Causes of gaps in the speech.
//!
//! Knows no stream.

use serde::{Deserialize, Serialize};

/// Why nothing is known of a part of a call; a text on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum GapCause {
    /// A stream was lost, and another one replaced it.
    SttDisconnect,
    /// Final turns were dropped because the pipeline was too far behind the proxied stream.
    TapOverrun,
    /// A cause that only a later version knows.
    Other(String),
}

impl From<String> for GapCause {
    fn from(text: String) -> Self {
        match text.as_str() {
            "stt_disconnect" => Self::SttDisconnect,
            "tap_overrun" => Self::TapOverrun,
            _ => Self::Other(text),
        }
    }
}

impl From<GapCause> for String {
    fn from(cause: GapCause) -> Self {
        match cause {
            GapCause::SttDisconnect => "stt_disconnect".to_owned(),
            GapCause::TapOverrun => "tap_overrun".to_owned(),
            GapCause::Other(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_read_back_as_they_are_written() {
        for text in ["stt_disconnect", "tap_overrun", "of_a_later_version", ""] {
            assert_eq!(String::from(GapCause::from(text.to_owned())), text);
        }
        assert_eq!(GapCause::from("tap_overrun".to_owned()), GapCause::TapOverrun);
    }
}
