//! Wall-clock time in its wire format, milliseconds, and call times for people.

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

/// A call time as `0:07`, `12:30` or `1:02:03`.
pub fn clock(ms: u64) -> String {
    let seconds = ms / 1000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Reads what [`rfc3339`] wrote, as ms since 1970.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    #[test]
    fn call_times_show_hours_only_where_there_are_some() {
        let shown = [7_900, 750_000, 3_723_000].map(super::clock);
        assert_eq!(shown, ["0:07", "12:30", "1:02:03"]);
    }

    #[test]
    fn times_read_back_in_ms() {
        let text = super::rfc3339_ms(1_790_221_526_007);
        assert_eq!(text, "2026-09-24T03:45:26.007Z");
        assert_eq!(super::parse_rfc3339(&text), Some(1_790_221_526_007));
    }
}
