//! Wall-clock time in its wire format, and milliseconds.

use std::time::Duration;

use jiff::Timestamp;

/// RFC 3339 in UTC with ms, such as `2026-01-31T12:00:00.123Z`.
pub fn rfc3339(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// Milliseconds since 1970 as [`rfc3339`]; saturates at the ends of the calendar.
pub fn rfc3339_ms(unix_ms: i64) -> String {
    rfc3339(Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The current time, ms since 1970.
pub fn unix_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A duration in whole milliseconds; saturates.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads what [`rfc3339`] wrote, as ms since 1970.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    #[test]
    fn round_trips_at_ms() {
        let text = super::rfc3339_ms(1_790_221_526_007);
        assert_eq!(text, "2026-09-24T03:45:26.007Z");
        assert_eq!(super::parse_rfc3339(&text), Some(1_790_221_526_007));
    }
}
