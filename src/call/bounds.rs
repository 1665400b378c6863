//! Limits on the content of STT events: texts, labels, words, times and turn numbers. Checked before an event reaches the
//! turn table, so that the event of a turn fits into a frame of 1 MiB and sums of times cannot overflow.
//!
//! Knows no call. Limits that depend on the state of a call (`meta_bytes`) are checked in the session.

use super::config::LimitsConfig;
use crate::base::measure;
use crate::types::{Final, Revision, SttEvent, TurnKey, Word};

/// Highest time in a stream and highest stream offset, ms. Unix times in ms are below it, because some producers send them.
pub const MAX_TIME_MS: u64 = 10_000_000_000_000;
/// Highest `turn_order`.
pub const MAX_TURN_ORDER: u64 = 1_000_000_000;

/// Upper bound on the size of a word in a frame without its text and label, bytes: member names, two times, confidence.
const WORD_BYTES: usize = 112;

/// Checks an event against the limits.
///
/// # Errors
/// Names the field, its size or value, and the limit. Contains no text of the call.
pub fn check(event: &SttEvent, limits: &LimitsConfig) -> Result<(), String> {
    match event {
        SttEvent::Final(last) => turn(last, limits),
        SttEvent::Revise(revision) => revise(revision, limits),
        SttEvent::Partial { key, speaker, text } => {
            number("partial", key, limits)?;
            label("partial.speaker", speaker.as_deref(), limits)?;
            said("partial", text, limits)
        }
        SttEvent::MergeSpeakers { from, to } => {
            label("speaker", Some(from), limits)?;
            label("speaker", Some(to), limits)
        }
        SttEvent::Begin { vendor_session } => label("vendor_session", vendor_session.as_deref(), limits),
        // Meta is checked where it is used; the others are not stored.
        SttEvent::Meta(_)
        | SttEvent::End { .. }
        | SttEvent::Restarted
        | SttEvent::SpeechStarted
        | SttEvent::Silence { .. }
        | SttEvent::VendorError { .. }
        | SttEvent::Dialect { .. }
        | SttEvent::Unknown { .. } => Ok(()),
    }
}

fn turn(last: &Final, limits: &LimitsConfig) -> Result<(), String> {
    let Final { key, text, speaker, words, start_ms, end_ms, language, formatted: _, confidence: _ } = last;
    number("turn", key, limits)?;
    label("turn.speaker", speaker.as_deref(), limits)?;
    label("turn.language", language.as_deref(), limits)?;
    time("turn.start_ms", start_ms.unwrap_or(0))?;
    time("turn.end_ms", end_ms.unwrap_or(0))?;
    said("turn", text, limits)?;
    all_words("turn", words, limits)
}

fn revise(revision: &Revision, limits: &LimitsConfig) -> Result<(), String> {
    let Revision { key, speaker, text, words } = revision;
    number("revise", key, limits)?;
    label("revise.speaker", speaker.as_deref(), limits)?;
    said("revise", text.as_deref().unwrap_or_default(), limits)?;
    all_words("revise", words, limits)
}

fn number(frame: &str, key: &TurnKey, limits: &LimitsConfig) -> Result<(), String> {
    match key {
        TurnKey::Order(order) if *order > MAX_TURN_ORDER => {
            Err(format!("{frame}.turn_order: expected an integer from 0 to {MAX_TURN_ORDER}, found {order}"))
        }
        TurnKey::Vendor(id) | TurnKey::Held(id) | TurnKey::Ended(id) => label("the turn's id", Some(id), limits),
        TurnKey::Order(_) | TurnKey::Next => Ok(()),
    }
}

fn time(path: &str, ms: u64) -> Result<(), String> {
    if ms <= MAX_TIME_MS {
        return Ok(());
    }
    Err(format!("{path}: expected an integer from 0 to {MAX_TIME_MS}, found {ms}"))
}

fn said(frame: &str, text: &str, limits: &LimitsConfig) -> Result<(), String> {
    over(&format_args!("{frame}.text"), text, limits.turn_bytes, "turn_bytes")
}

/// Checks a label against `limits.label_bytes`.
///
/// # Errors
/// As for [`check`].
pub fn label(path: &str, label: Option<&str>, limits: &LimitsConfig) -> Result<(), String> {
    over(&path, label.unwrap_or_default(), limits.label_bytes, "label_bytes")
}

fn over(path: &dyn std::fmt::Display, text: &str, limit: usize, name: &str) -> Result<(), String> {
    match measure::over(text, limit) {
        None => Ok(()),
        Some(bytes) => Err(format!("{path}: {bytes} bytes as JSON are over the limit of {limit} (limits.{name})")),
    }
}

fn all_words(frame: &str, words: &[Word], limits: &LimitsConfig) -> Result<(), String> {
    let mut longest = 0;
    for (index, word) in words.iter().enumerate() {
        let Word { text, end_ms, speaker, start_ms: _, confidence: _ } = word;
        let label = speaker.as_deref().unwrap_or_default();
        longest += WORD_BYTES + measure::WORST * (text.len() + label.len());
        let path = |field: &str| format!("{frame}.words[{index}].{field}");
        // Decoders guarantee `start_ms <= end_ms`.
        if *end_ms > MAX_TIME_MS {
            time(&path("end_ms"), *end_ms)?;
        }
        if measure::over(label, limits.label_bytes).is_some() {
            self::label(&path("speaker"), speaker.as_deref(), limits)?;
        }
    }
    let limit = limits.words_bytes();
    if longest <= limit {
        return Ok(());
    }
    let label = |word: &Word| word.speaker.as_deref().map_or(0, measure::text);
    let bytes: usize = words.iter().map(|word| WORD_BYTES + measure::text(&word.text) + label(word)).sum();
    if bytes <= limit {
        return Ok(());
    }
    Err(format!(
        "{frame}.words: {bytes} bytes as JSON are over the limit of {limit} (12 times limits.turn_bytes, or what a frame of \
         1 MiB has room for beside the text)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::settings::Problems;
    use crate::protocol::event::encode;
    use crate::protocol::{Event, Stamp};
    use crate::types::{CallId, MAX_FRAME_BYTES, StreamId, Turn};

    fn limits() -> LimitsConfig {
        LimitsConfig::read(None, &mut Problems::default())
    }

    fn last(text: &str) -> Final {
        Final {
            key: TurnKey::Order(0),
            formatted: true,
            text: text.to_owned(),
            speaker: None,
            words: Vec::new(),
            start_ms: None,
            end_ms: None,
            language: None,
            confidence: None,
        }
    }

    fn word(text: &str, speaker: Option<&str>) -> Word {
        Word {
            text: text.to_owned(),
            start_ms: 0,
            end_ms: MAX_TIME_MS,
            speaker: speaker.map(str::to_owned),
            confidence: Some(0.123_456_79),
        }
    }

    fn checked(last: Final) -> Result<(), String> {
        check(&SttEvent::Final(Box::new(last)), &limits())
    }

    #[test]
    fn event_over_a_limit_is_refused_and_the_limit_named() {
        let label = "x".repeat(257);
        let labelled = || Some(label.clone());
        let long = [
            (
                last(&"x".repeat(65_537)),
                "turn.text: 65537 bytes as JSON are over the limit of 65536 (limits.turn_bytes)",
            ),
            // A control character takes six bytes as JSON.
            (last(&"\u{1}".repeat(11_000)), "turn.text: 66000 bytes as JSON"),
            (
                Final { speaker: labelled(), ..last("x") },
                "turn.speaker: 257 bytes as JSON are over the limit of 256 (limits.label_bytes)",
            ),
            (Final { language: labelled(), ..last("x") }, "turn.language: 257 bytes"),
            (Final { key: TurnKey::Vendor(label.clone()), ..last("x") }, "the turn's id: 257 bytes"),
            (Final { key: TurnKey::Held(label.clone()), ..last("x") }, "the turn's id: 257 bytes"),
            (
                Final { words: vec![word("x", None), word("x", Some(&label))], ..last("x") },
                "turn.words[1].speaker: 257 bytes",
            ),
            (
                Final { words: vec![word("", None); 8_000], ..last("x") },
                "turn.words: 896000 bytes as JSON are over the limit of 786432 (12 times limits.turn_bytes",
            ),
            (Final { words: vec![word(&"\u{1}".repeat(200_000), None)], ..last("x") }, "turn.words: 1200112 bytes"),
            (
                Final { key: TurnKey::Order(1_000_000_001), ..last("x") },
                "turn.turn_order: expected an integer from 0 to 1000000000, found 1000000001",
            ),
            (
                Final { start_ms: Some(u64::MAX), ..last("x") },
                "turn.start_ms: expected an integer from 0 to 10000000000000, found 18446744073709551615",
            ),
            (Final { end_ms: Some(MAX_TIME_MS + 1), ..last("x") }, "turn.end_ms: expected"),
            (
                Final { words: vec![Word { end_ms: MAX_TIME_MS + 1, ..word("x", None) }], ..last("x") },
                "turn.words[0].end_ms: expected",
            ),
        ];
        for (refused, message) in long {
            let said = checked(refused).expect_err(message);
            assert!(said.starts_with(message), "{said}");
        }
        let partial = SttEvent::Partial { key: TurnKey::Next, speaker: labelled(), text: String::new() };
        let begin = SttEvent::Begin { vendor_session: labelled() };
        let merge = SttEvent::MergeSpeakers { from: "A".to_owned(), to: label.clone() };
        let revision =
            Revision { key: TurnKey::Order(0), speaker: None, text: Some("x".repeat(65_537)), words: Vec::new() };
        for event in [partial, begin, merge, SttEvent::Revise(Box::new(revision))] {
            assert!(check(&event, &limits()).is_err(), "{event:?}");
        }
    }

    #[test]
    fn event_within_the_highest_limits_fits_into_a_frame() {
        for turn_bytes in [1, 300, 64 * 1024, 512 * 1024] {
            let limits = LimitsConfig { turn_bytes, label_bytes: 4096, ..limits() };
            let label = "\u{1}".repeat(limits.label_bytes / 6);
            let count = limits.words_bytes() / (WORD_BYTES + 1);
            let last = Final {
                key: TurnKey::Vendor(label.clone()),
                speaker: Some(label.clone()),
                language: Some(label.clone()),
                start_ms: Some(MAX_TIME_MS),
                end_ms: Some(MAX_TIME_MS),
                words: vec![word("x", None); count],
                ..last(&"\u{1}".repeat(turn_bytes / 6))
            };
            assert_eq!(check(&SttEvent::Final(Box::new(last.clone())), &limits), Ok(()), "{turn_bytes}");
            let later = |word: Word| Word { start_ms: 2 * MAX_TIME_MS, end_ms: 2 * MAX_TIME_MS, ..word };
            let words: Vec<Word> = last.words.into_iter().map(later).collect();
            let words = measure::value(&words);
            let turn = Turn {
                turn: u64::MAX,
                stream_id: StreamId::parse(&"s".repeat(128)).expect("id"),
                turn_order: u64::MAX,
                vendor_turn: Some(label),
                rev: u32::MAX,
                speaker: last.speaker,
                text: last.text,
                start_ms: 2 * MAX_TIME_MS,
                end_ms: 2 * MAX_TIME_MS,
                language: last.language,
                confidence: Some(0.123_456_79),
                words: Vec::new(),
            };
            let call_id = CallId::parse(&"c".repeat(128)).expect("id");
            let stamp = Stamp { call_id, seq: u64::MAX, at: "2026-01-01T00:00:00.000Z".to_owned() };
            let frame = encode(&stamp, &Event::TurnFinal { turn }).len();
            assert!(frame + words < MAX_FRAME_BYTES, "{turn_bytes}: {frame} and {words} bytes of words");
        }
    }
}
