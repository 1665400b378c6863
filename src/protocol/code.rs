//! Error codes of the `error` frame, on the sockets of producers and subscribers.
//!
//! Knows no messages: the code that finds an error writes its message. HTTP errors and failed analyses have codes of
//! their own.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The kind of an error. Stable; later versions may add codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The code with this text; `None` if only a later version has it.
            pub fn from_text(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

error_codes! {
    /// The message is not JSON.
    BadJson = "bad_json",
    /// A field is missing, wrong, or over a limit.
    BadField = "bad_field",
    /// A parameter of the URL is wrong.
    BadParameter = "bad_parameter",
    /// A binary message, or one that is not a valid WebSocket message.
    BadFrame = "bad_frame",
    /// The message is over the limit.
    FrameTooLarge = "frame_too_large",
    /// The message's `type` is not known. Sent once per type.
    UnknownType = "unknown_type",
    /// None of the first messages was understood: the dialect is probably another one.
    NotUnderstood = "not_understood",
    /// There is no analysis of this name.
    UnknownAnalysis = "unknown_analysis",
    /// A route has no variant of this name.
    UnknownVariant = "unknown_variant",
    /// There is no such call.
    UnknownCall = "unknown_call",
    /// There is no such subscription on this socket.
    UnknownSubscription = "unknown_subscription",
    /// The request names more calls than `limits.calls_per_subscription`.
    TooManyCalls = "too_many_calls",
    /// The socket has as many subscriptions as `limits.subscriptions_per_socket` allows.
    TooManySubscriptions = "too_many_subscriptions",
    /// The call has as many streams as `limits.streams_per_call` allows.
    TooManyStreams = "too_many_streams",
    /// Too many revisions wait for turns that have not come.
    TooManyRevisions = "too_many_revisions",
    /// Another connection feeds the stream.
    Superseded = "superseded",
    /// The call is completed.
    CallCompleted = "call_completed",
    /// The call has failed.
    CallFailed = "call_failed",
    /// The call's log is damaged from some event on.
    CallDamaged = "call_damaged",
    /// The event is larger than a frame may be.
    EventTooLarge = "event_too_large",
    /// The call's session was rebuilt from the journal: reconnect and resend.
    SessionRestarted = "session_restarted",
    /// Over a limit of calls.
    RateLimited = "rate_limited",
    /// The journal accepts no writes, or cannot be read. The daemon continues by itself once it can.
    JournalUnavailable = "journal_unavailable",
    /// The daemon stops.
    Stopping = "stopping",
    /// No key, or one that is unknown or revoked.
    Unauthenticated = "unauthenticated",
    /// The key lacks a scope.
    Forbidden = "forbidden",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_text(&text).ok_or_else(|| serde::de::Error::custom("not an error code of this version"))
    }
}

/// The schema allows any text, because a later daemon may have more codes.
#[cfg(test)]
impl schemars::JsonSchema for ErrorCode {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ErrorCode".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let description = "What is wrong. The codes of this version are the examples; treat another one by `fatal` and \
                           `temporary`.";
        let codes: Vec<&str> = Self::ALL.iter().map(|code| code.as_str()).collect();
        schemars::json_schema!({ "description": description, "type": "string", "examples": codes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_differ_and_read_back() {
        for (position, code) in ErrorCode::ALL.iter().enumerate() {
            let json = serde_json::to_string(code).expect("json");
            assert_eq!(json, format!("\"{code}\""));
            assert_eq!(serde_json::from_str::<ErrorCode>(&json).expect("a code"), *code);
            assert!(ErrorCode::ALL[..position].iter().all(|other| other.as_str() != code.as_str()), "{code}");
        }
        assert!(serde_json::from_str::<ErrorCode>("\"some_later_code\"").is_err());
    }
}
