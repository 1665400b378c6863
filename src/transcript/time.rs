//! Reads times as files write them.
//!
//! Knows no format.

use super::{Line, TranscriptError};

/// Highest hours of a time.
const MAX_HOURS: u64 = 9_999;
/// How a time is written, for errors.
const EXPECTED: &str = "[hours:]minutes:seconds[.fraction], such as 01:02.500, below 10,000 hours";

/// A time in ms: `[hours:]minutes:seconds`, with a fraction after a dot or a comma. Only the first part may be above
/// 59. A negative time, as of shifted subtitles, is 0.
pub(super) fn ms(text: &str) -> Option<u64> {
    let (negative, text) = match text.strip_prefix(['-', '\u{2212}']) {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once(['.', ',']).unwrap_or((text, "0"));
    let parts: Vec<u64> = whole.splitn(4, ':').map(number).collect::<Option<_>>()?;
    if !(2..=3).contains(&parts.len()) || parts.iter().skip(1).any(|part| *part > 59) {
        return None;
    }
    let seconds = parts.iter().fold(0, |all, part| all * 60 + part);
    if seconds >= (MAX_HOURS + 1) * 3600 {
        return None;
    }
    let ms = seconds * 1000 + thousandths(fraction)?;
    Some(if negative { 0 } else { ms })
}

/// A time within a line of text: as [`ms`], but each part after the first has two digits and the first at most three,
/// so that `4:3` is not a time.
pub(super) fn stamp(text: &str) -> Option<u64> {
    let whole = text.split(['.', ',']).next().unwrap_or_default();
    let mut parts = whole.split(':');
    let first = parts.next().unwrap_or_default();
    let fits = (1..=3).contains(&first.len()) && parts.all(|part| part.len() == 2);
    if fits && first.starts_with(|digit: char| digit.is_ascii_digit()) { ms(text) } else { None }
}

/// The time at byte `at` of a line, up to white space.
///
/// # Errors
/// The text is not a time; the error has its place and what is expected.
pub(super) fn at(line: &Line<'_>, at: usize, text: &str) -> Result<u64, TranscriptError> {
    ms(text).ok_or_else(|| {
        // Digits and punctuation are not transcript text.
        let shown = text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_digit() || b":.,-".contains(&byte));
        let found = match text {
            "" => "nothing".to_owned(),
            text if shown => format!("{text:?}"),
            text => format!("{} characters that are not a time", text.chars().count()),
        };
        line.fault(at, format!("expected a time, {EXPECTED}; found {found}"))
    })
}

fn number(digits: &str) -> Option<u64> {
    let is_number = (1..=7).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { digits.parse().ok() } else { None }
}

/// The first three digits of a fraction.
fn thousandths(digits: &str) -> Option<u64> {
    let is_fraction = (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_fraction {
        return None;
    }
    digits.chars().chain(std::iter::repeat('0')).take(3).collect::<String>().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_products_write_them() {
        for (text, expected) in [
            ("00:00:01.500", Some(1_500)),
            ("00:01.500", Some(1_500)),
            ("1:02:03,45", Some(3_723_450)),
            ("0:0:1.820", Some(1_820)),
            ("00:00:20", Some(20_000)),
            ("75:10.5", Some(4_510_500)),
            ("123:00:00.001", Some(442_800_001)),
            ("9999:59:59.999999999", Some(35_999_999_999)),
            ("-00:00:01,000", Some(0)),
            ("10000:00:00.000", None),
            ("00:60:00.000", None),
            ("00:00:60.000", None),
            ("00:00:00:01", None),
            ("00.01", None),
            ("12", None),
            ("00:01.", None),
            ("00:0x.5", None),
            ("", None),
            ("٠٠:٠١", None),
        ] {
            assert_eq!(ms(text), expected, "{text}");
        }
    }

    #[test]
    fn stamps_are_read_more_strictly_than_times() {
        for (text, expected) in [
            ("0:15", Some(15_000)),
            ("1:02:30", Some(3_750_000)),
            ("100:00:00", Some(360_000_000)),
            ("00:12.345", Some(12_345)),
            ("4:3", None),
            ("-0:15", None),
            ("1000:00", None),
            (":15", None),
        ] {
            assert_eq!(stamp(text), expected, "{text}");
        }
    }

    #[test]
    fn error_shows_a_wrong_time_and_no_words() {
        let line = Line { number: 7, text: "é 00:61 x" };
        let error = at(&line, 3, "00:61").expect_err("no time").to_string();
        assert!(
            error.starts_with("line 7, column 3: expected a time, [hours:]") && error.ends_with("found \"00:61\""),
            "{error}"
        );
        let error = at(&line, 0, "secret").expect_err("no time").message;
        assert!(!error.contains("secret") && error.contains("6 characters"), "{error}");
    }
}
