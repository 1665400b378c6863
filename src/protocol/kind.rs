//! Kinds of events: the `type` of each on the wire, and its number in the headers of records.
//!
//! Knows no event.

use crate::types::KindCode;

macro_rules! kinds {
    ($($name:ident = $code:literal $text:literal,)*) => {
        /// The kind of an event: its `type` on the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind {
            $(#[doc = concat!("`", $text, "`")] $name,)*
            /// An event of a later version, whose kind this version does not know.
            Other,
        }

        impl Kind {
            /// All kinds of this version.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The `type` on the wire; empty for [`Kind::Other`].
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other => "",
                }
            }

            /// The kind with this `type`.
            pub fn from_type(text: &str) -> Self {
                match text {
                    $($text => Self::$name,)*
                    _ => Self::Other,
                }
            }

            /// The number in the headers of records; 0 for [`Kind::Other`].
            pub const fn code(self) -> KindCode {
                match self {
                    $(Self::$name => KindCode($code),)*
                    Self::Other => KindCode(0),
                }
            }

            /// The kind with this number.
            pub const fn from_code(code: KindCode) -> Self {
                match code.0 {
                    $($code => Self::$name,)*
                    _ => Self::Other,
                }
            }
        }
    };
}

// The number of a kind is stored in the journal's records. A new kind takes the next number, and no number is used
// again.
kinds! {
    CallStarted = 1 "call.started",
    CallUpdated = 2 "call.updated",
    StreamStarted = 3 "stream.started",
    StreamEnded = 4 "stream.ended",
    TurnFinal = 5 "turn.final",
    TurnRevised = 6 "turn.revised",
    Gap = 7 "gap",
    InsightUpdated = 8 "insight.updated",
    InsightFailed = 9 "insight.failed",
    CallCompleted = 10 "call.completed",
    CallFailed = 11 "call.failed",
    AlertRaised = 12 "alert.raised",
    AlertCleared = 13 "alert.cleared",
}

impl Kind {
    /// Returns true for `turn.final` and `turn.revised`.
    pub fn is_turn(self) -> bool {
        matches!(self, Self::TurnFinal | Self::TurnRevised)
    }

    /// Returns true for `insight.updated` and `insight.failed`.
    pub fn is_insight(self) -> bool {
        matches!(self, Self::InsightUpdated | Self::InsightFailed)
    }

    /// Returns true for `alert.raised` and `alert.cleared`.
    pub fn is_alert(self) -> bool {
        matches!(self, Self::AlertRaised | Self::AlertCleared)
    }

    /// Returns true for the call's last event: `call.completed` or `call.failed`.
    pub fn ends_call(self) -> bool {
        matches!(self, Self::CallCompleted | Self::CallFailed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_read_back_and_a_later_one_is_other() {
        for (number, kind) in (1..).zip(Kind::ALL) {
            assert_eq!(Kind::from_type(kind.as_str()), *kind);
            assert_eq!((Kind::from_code(kind.code()), kind.code()), (*kind, KindCode(number)));
        }
        for other in ["", "call.moved"] {
            assert_eq!(Kind::from_type(other), Kind::Other, "{other}");
        }
        for other in [0, 255] {
            assert_eq!(Kind::from_code(KindCode(other)), Kind::Other, "{other}");
        }
    }
}
