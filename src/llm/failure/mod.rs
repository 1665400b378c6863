//! Vendors' refusals: their class, if a retry can help, and when.
//!
//! Knows no clock: a date in `retry-after` is returned as a date.

mod read;
mod reported;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

pub use self::read::{read, read_value, retry_after};
pub use self::reported::reported;

/// Longest message of a vendor that is kept, in bytes.
const MAX_MESSAGE_BYTES: usize = 500;

/// The class of a failure. It decides what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The vendor does not accept this request: no retry, but another candidate may accept it.
    Invalid,
    /// Our key is not accepted, or not for this request.
    Auth,
    /// The vendor does not have this model.
    NotFound,
    /// Too many requests or tokens at the moment.
    RateLimited,
    /// A quota or spending limit is used up: waiting does not help soon.
    Exhausted,
    /// A failure at the vendor: 5xx, 529, 408, 409.
    Upstream,
}

impl Class {
    /// Returns true if the same request may succeed at the same vendor a little later.
    pub fn retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::Upstream)
    }
}

/// When to retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// After this duration.
    In(Duration),
    /// At this time.
    At(SystemTime),
}

/// Upper bound on a time that a vendor reports, in seconds or as a date, so that a bad value can neither block requests
/// forever nor overflow `Instant`.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

impl RetryAfter {
    /// The wait that is left at `now`: at most 24 hours.
    pub fn wait(self, now: SystemTime) -> Duration {
        let wait = match self {
            Self::In(duration) => duration,
            Self::At(time) => time.duration_since(now).unwrap_or_default(),
        };
        wait.min(LONGEST_WAIT)
    }
}

/// A vendor's refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("status {status}: {message}")]
pub struct VendorError {
    /// Class of the failure.
    pub class: Class,
    /// HTTP status. For an error inside a stream, the status that it stands for.
    pub status: u16,
    /// The vendor's code or type.
    pub code: Option<String>,
    /// The vendor's message, shortened. May quote the caller's request; not for third parties.
    pub message: String,
    /// When to retry, if the vendor says so.
    pub retry_after: Option<RetryAfter>,
    /// Set if a retry can help; normally as for the class.
    pub retry: bool,
}

impl VendorError {
    /// An error of the class that `status` stands for, with the usual retry rule of that class.
    pub fn new(status: u16, code: Option<String>, message: impl Into<String>) -> Self {
        let class = class_of(status);
        Self { class, status, code, message: shorten(message.into()), retry_after: None, retry: class.retryable() }
    }

    /// Adds when to retry, if waiting can help.
    fn waiting(mut self, told: impl FnOnce() -> Option<RetryAfter>) -> Self {
        if matches!(self.class, Class::RateLimited | Class::Upstream) {
            self.retry_after = told();
        }
        self
    }

    /// Changes the class, and with it the retry rule.
    #[must_use]
    pub fn of_class(mut self, class: Class) -> Self {
        self.class = class;
        self.retry = class.retryable();
        self
    }
}

fn class_of(status: u16) -> Class {
    match status {
        401 | 403 => Class::Auth,
        402 => Class::Exhausted,
        404 => Class::NotFound,
        408 | 409 => Class::Upstream,
        429 => Class::RateLimited,
        400..=499 => Class::Invalid,
        _ => Class::Upstream,
    }
}

fn shorten(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        super::cut(&mut message, MAX_MESSAGE_BYTES);
        message.push('…');
    }
    message
}
