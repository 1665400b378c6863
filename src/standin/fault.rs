//! Faults that the stand-in can simulate.

use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The connection closes without a close frame.
    Drop,
    /// A clean close with code 1000, without `Termination`.
    Cut,
    /// Nothing more is sent; the connection stays open.
    Stall,
    /// Broken JSON, a binary message and a `Turn` with wrong fields are sent; then the session continues.
    Garble,
    /// Every frame is sent one second late.
    Slow,
    /// An `Error` frame, then a close with this code.
    Error(u16),
    /// The upgrade succeeds, but nothing is sent, not even `Begin`.
    Mute,
    /// The upgrade is refused with 503.
    Refuse,
}

/// A fault, and when it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    /// Number of ended turns after which the fault happens; 0 means before the first.
    pub after_turns: usize,
}

impl FromStr for Fault {
    type Err = String;

    /// Reads `KIND` or `KIND@TURNS`; `=` and `:` are accepted instead of `@`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, turns) = text.split_once(['@', '=', ':']).map_or((text, None), |(kind, turns)| (kind, Some(turns)));
        let (kind, default) = match kind {
            "drop" => (FaultKind::Drop, 1),
            "cut" => (FaultKind::Cut, 1),
            "stall" => (FaultKind::Stall, 1),
            "garble" => (FaultKind::Garble, 1),
            "slow" => (FaultKind::Slow, 0),
            "mute" => (FaultKind::Mute, 0),
            "refuse" => (FaultKind::Refuse, 0),
            "1008" => (FaultKind::Error(1008), 0),
            "3005" => (FaultKind::Error(3005), 1),
            "3008" => (FaultKind::Error(3008), 1),
            other => {
                return Err(format!(
                    "no fault {other:?}; there are: drop, cut, stall, garble, slow, mute, refuse, 1008, 3005, 3008; \
                     @TURNS after one delays it by that many turns"
                ));
            }
        };
        let after_turns = match turns {
            None => default,
            Some(turns) => turns.parse().map_err(|_| format!("expected a number of turns after @, found {turns:?}"))?,
        };
        Ok(Self { kind, after_turns })
    }
}

/// The vendor's error text for a code.
pub(super) fn error_text(code: u16) -> &'static str {
    match code {
        1008 => "Unauthorized Connection: Invalid API key",
        3006 => "User Input Validation Error",
        3007 => "Input Duration Error: expected between 50 and 1000 ms",
        3008 => "Session Expired: Maximum session duration exceeded",
        _ => "Session Cancelled: An error occurred",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_read_with_and_without_a_place() {
        assert_eq!("drop@3".parse(), Ok(Fault { kind: FaultKind::Drop, after_turns: 3 }));
        assert_eq!("cut=2".parse(), Ok(Fault { kind: FaultKind::Cut, after_turns: 2 }));
        assert_eq!("1008".parse(), Ok(Fault { kind: FaultKind::Error(1008), after_turns: 0 }));
        assert!("melt".parse::<Fault>().is_err_and(|message| message.contains("garble")));
        assert!("drop@soon".parse::<Fault>().is_err());
    }
}
