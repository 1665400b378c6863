//! Close codes of the daemon's WebSockets (DESIGN 5.2), and when a client should reconnect after each.
//!
//! Knows no socket and does not wait: the client chooses how long it waits. The STT proxy closes with the vendor's
//! codes, which are not here.

use std::fmt;

use super::ErrorFrame;

/// When a client should reconnect after its connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReconnectWhen {
    /// At once; after repeated failures with backoff.
    Now,
    /// After a few seconds: reconnecting at once would make things worse.
    Later,
    /// Never: reconnecting cannot help.
    Never,
}

/// Why the daemon closes a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// Everything was sent. To a producer: the call is completed.
    Done,
    /// The daemon is stopping, or the call is being rebuilt from its journal.
    GoingAway,
    /// The client reads too slowly, or retention has deleted the position that it resumes from.
    TooSlow,
    /// A parameter is invalid, or a message is not a valid WebSocket message.
    BadMessage,
    /// The request has no key, or one that is unknown or revoked.
    Unauthenticated,
    /// The key lacks a scope.
    Forbidden,
    /// The client did not subscribe within `subscribe.subscribe_timeout_ms`.
    NoSubscribe,
    /// A newer connection feeds the same stream.
    Superseded,
    /// The call is completed and takes no new stream.
    CallCompleted,
    /// A message is larger than the limit.
    FrameTooLarge,
    /// A limit is reached that frees itself over time: calls, streams.
    RateLimited,
    /// The daemon has an internal error, or the call has failed.
    Internal,
}

/// A close of a connection by the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The `error` frame that is sent before the close frame.
    pub error: Option<ErrorFrame>,
    pub code: CloseCode,
    /// Reason in the close frame, for people.
    pub reason: &'static str,
}

impl Close {
    /// A close without an `error` frame.
    pub fn new(code: CloseCode, reason: &'static str) -> Self {
        Self { error: None, code, reason }
    }

    /// A close after the `error` frame.
    pub fn after(error: ErrorFrame, code: CloseCode, reason: &'static str) -> Self {
        Self { error: Some(error), code, reason }
    }
}

impl CloseCode {
    /// All codes, by number.
    pub const ALL: [Self; 12] = [
        Self::Done,
        Self::GoingAway,
        Self::TooSlow,
        Self::BadMessage,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NoSubscribe,
        Self::Superseded,
        Self::CallCompleted,
        Self::FrameTooLarge,
        Self::RateLimited,
        Self::Internal,
    ];

    /// The number in the close frame.
    pub const fn number(self) -> u16 {
        match self {
            Self::Done => 1000,
            Self::GoingAway => 1001,
            Self::TooSlow => 1013,
            Self::BadMessage => 4400,
            Self::Unauthenticated => 4401,
            Self::Forbidden => 4403,
            Self::NoSubscribe => 4408,
            Self::Superseded => 4409,
            Self::CallCompleted => 4410,
            Self::FrameTooLarge => 4413,
            Self::RateLimited => 4429,
            Self::Internal => 4500,
        }
    }

    /// The code with this number; `None` if the daemon closes with no such number.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// A short name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::GoingAway => "going away",
            Self::TooSlow => "too slow",
            Self::BadMessage => "bad message",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NoSubscribe => "no subscribe",
            Self::Superseded => "superseded",
            Self::CallCompleted => "call completed",
            Self::FrameTooLarge => "frame too large",
            Self::RateLimited => "rate limited",
            Self::Internal => "internal",
        }
    }

    /// When a client that did not expect the close should reconnect.
    pub const fn reconnect(self) -> ReconnectWhen {
        match self {
            Self::Done | Self::GoingAway | Self::TooSlow | Self::NoSubscribe => ReconnectWhen::Now,
            Self::RateLimited | Self::Internal => ReconnectWhen::Later,
            Self::BadMessage
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::Superseded
            | Self::CallCompleted
            | Self::FrameTooLarge => ReconnectWhen::Never,
        }
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.number(), self.name())
    }
}

/// When a client should reconnect after a close with this number. The number may also come from a proxy in between, or
/// stand for a lost connection.
pub fn reconnect_after(number: u16) -> ReconnectWhen {
    match CloseCode::from_number(number) {
        Some(code) => code.reconnect(),
        None => match number {
            // Policy violation: used by proxies for a refusal, and by the STT vendor.
            1008 => ReconnectWhen::Never,
            // Internal error of the server.
            1011 => ReconnectWhen::Later,
            // 1005 and 1006: the connection was lost. 1012: the server restarts.
            _ => ReconnectWhen::Now,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_have_the_numbers_of_the_contract() {
        let numbers = CloseCode::ALL.map(CloseCode::number);
        assert_eq!(numbers, [1000, 1001, 1013, 4400, 4401, 4403, 4408, 4409, 4410, 4413, 4429, 4500]);
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_number(code.number()), Some(code));
        }
        assert_eq!(CloseCode::from_number(1006), None);
        assert_eq!(CloseCode::RateLimited.to_string(), "4429 rate limited");
    }

    #[test]
    fn close_code_that_a_client_cannot_fix_means_never() {
        for number in [1008, 4400, 4401, 4403, 4409, 4410, 4413] {
            assert_eq!(reconnect_after(number), ReconnectWhen::Never, "{number}");
        }
        for number in [1001, 1005, 1006, 1012, 1013, 4408] {
            assert_eq!(reconnect_after(number), ReconnectWhen::Now, "{number}");
        }
        for number in [1011, 4429, 4500] {
            assert_eq!(reconnect_after(number), ReconnectWhen::Later, "{number}");
        }
    }

    #[test]
    fn close_codes_of_the_documentation_lead_to_its_reactions() {
        let page = crate::docs::topic("errors").expect("the page").text;
        let (_, table) = page.split_once("| code | meaning | reconnect |").expect("the table");
        let mut seen = 0;
        for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let expected = match cells[2] {
                "now" => ReconnectWhen::Now,
                "later" => ReconnectWhen::Later,
                "never" => ReconnectWhen::Never,
                other => panic!("come back {other}?"),
            };
            for code in cells[0].split(", ").map(|code| code.parse().expect("a code")) {
                // A connection that ended normally was not lost.
                if code != 1000 {
                    assert_eq!(reconnect_after(code), expected, "{code}");
                }
                seen += 1;
            }
        }
        // The daemon never sends 1006, which stands for a lost connection.
        assert_eq!(seen, CloseCode::ALL.len() + 1, "close codes in src/docs/errors.md");
    }
}
