//! Values that several sections have: names, vendors' model ids and dates.

use crate::base::settings::Section;

/// Reads a date; returns the start of that UTC day as Unix ms.
pub(super) fn read_day(section: &mut Section<'_>, key: &'static str) -> Option<i64> {
    let text = section.string(key)?;
    let begins = || {
        let date: jiff::civil::Date = text.parse().ok()?;
        Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond())
    };
    let day = begins();
    if day.is_none() {
        section.problem(key, format!("expected a date as 2026-01-31 (it begins in UTC), found {text:?}"));
    }
    day
}

pub(super) fn name_is_valid(name: &str) -> bool {
    crate::types::id::check(name).is_ok()
}

/// Returns true for a valid vendor id: `[A-Za-z0-9._:@/+-]{1,200}`, no `..`.
pub(crate) fn vendor_id_is_valid(id: &str) -> bool {
    (1..=200).contains(&id.len())
        && !id.contains("..")
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'@' | b'/' | b'+' | b'-'))
}
