//! Finds a wait in a sentence: `Please try again in 1m12.5s`, `30 seconds before retrying`, `Retry-After: 12`.
//!
//! A time counts only next to a word about retrying. Only the English words in the lists below are recognised.

use super::tokens::{self, Token};
use super::{UNIX_S, date, duration, listed, of_number};
use crate::llm::RetryAfter;

/// Number of bytes of a text that are read: a wait is stated in the first sentences.
const MAX_TEXT_BYTES: usize = 4096;
/// Words after which a time is a wait.
const TRIGGERS: &str = "again available back backoff clears cleared come cooldown delay lifted lifts ready recover recovers refill \
    refills refresh refreshes refreshed renew renews renewed replenish replenishes replenished reset resets \
    resetting restored resume resumes retried retry retrying unblocked wait waiting";
/// Words that may stand between a trigger and its time.
const FILLERS: &str = "about after another approx back approximately around at be by delay due estimated for further in is it least \
    of off on once only period please quota request requests shortly the this time to until up us will within \
    you your roughly later next limit limits rate sending trying before retry retrying again sometime";
/// Maximum number of fillers between a trigger and its time, and of bridges between a time and its follower.
const MAX_FILLERS: usize = 6;
/// Words after a time that make it a wait: `30 seconds before retrying`, `in 5 s, then try again`.
const FOLLOWERS: &str = "again retry retrying retried reset resets resend resubmitting";
/// Words that may stand between a time and its follower.
const BRIDGES: &str = "and another attempting before can for it making may next please request sending should the then to try \
    trying until we you your will a quota limit";
/// Things that limits count: a time right after them (`100 requests in 60 seconds`) is a window.
const COUNTED: &str = "attempts calls images messages queries requests times tokens";
/// Fillers after which a bare number means seconds, as in `Retry-After: 12`.
const NAMES: &str = "after delay for in is period time";
/// Words that show that a time next to them is the window of a limit.
const WINDOWS: &str = "per every each last past previous over during window rolling";

/// The wait that a text states, if any.
pub(super) fn wait(text: &str) -> Option<RetryAfter> {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let tokens = tokens::cut(&text[..end]);
    (0..tokens.len()).find_map(|at| after_trigger(&tokens, at).or_else(|| before_follower(&tokens, at)))
}

fn word<'t>(tokens: &'t [Token<'_>], at: usize) -> Option<&'t str> {
    match tokens.get(at)? {
        Token::Word(word) => Some(word),
        _ => None,
    }
}

fn sign(tokens: &[Token<'_>], at: usize, signs: &[char]) -> bool {
    matches!(tokens.get(at), Some(Token::Sign(sign)) if signs.contains(sign))
}

/// Length of a unit in seconds.
fn unit(word: &str) -> Option<f64> {
    Some(match word {
        "ns" | "nanosecond" | "nanoseconds" => 1e-9,
        "us" | "µs" | "μs" | "microsecond" | "microseconds" => 1e-6,
        "ms" | "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => 1e-3,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "week" | "weeks" => 604_800.0,
        _ => return None,
    })
}

/// A number, in digits or as one of the words that are common in waits.
fn number(tokens: &[Token<'_>], at: usize) -> Option<f64> {
    match tokens.get(at)? {
        Token::Number(number) => Some(*number),
        Token::Word(word) => Some(match word.as_str() {
            "a" | "an" | "one" => 1.0,
            "two" => 2.0,
            "three" => 3.0,
            "five" => 5.0,
            "ten" => 10.0,
            "fifteen" => 15.0,
            "twenty" => 20.0,
            "thirty" => 30.0,
            "sixty" => 60.0,
            _ => return None,
        }),
        _ => None,
    }
}

/// The seconds of a clock time such as `00:01:30` at `at`, and the token after it.
fn clock(tokens: &[Token<'_>], at: usize) -> Option<(f64, usize)> {
    let figures = |at: usize| match tokens.get(at) {
        Some(Token::Number(number)) => Some(*number),
        _ => None,
    };
    let colons = sign(tokens, at + 1, &[':']) && sign(tokens, at + 3, &[':']);
    let (hours, minutes, seconds) = (figures(at)?, figures(at + 2)?, figures(at + 4)?);
    colons.then_some((hours * 3_600.0 + minutes * 60.0 + seconds, at + 5))
}

/// The seconds of the duration at `at`, and the token after it.
pub(super) fn time(tokens: &[Token<'_>], at: usize) -> Option<(f64, usize)> {
    let figures = |at: usize| match tokens.get(at) {
        Some(Token::Number(number)) => Some(*number),
        _ => None,
    };
    if let Some(clock) = clock(tokens, at) {
        return Some(clock);
    }
    let mut next = at;
    let mut seconds = 0.0;
    let mut least = f64::INFINITY;
    loop {
        // Each part has a smaller unit than the one before; a comma or `and` may join them.
        let mut from = next;
        if next > at {
            from += usize::from(sign(tokens, from, &[',']));
            from += usize::from(word(tokens, from) == Some("and"));
        }
        let Some(mut count) = number(tokens, from) else { break };
        let mut after = from + 1;
        // `5-10 seconds`, `5 to 10 seconds`: the longer one counts.
        if next == at
            && (sign(tokens, after, &['-', '–']) || word(tokens, after) == Some("to"))
            && let Some(upper) = figures(after + 1)
        {
            count = count.max(upper);
            after += 2;
        }
        after += usize::from(sign(tokens, after, &['-']));
        let Some(length) = word(tokens, after).and_then(unit).filter(|length| *length < least) else { break };
        seconds += count * length;
        least = length;
        next = after + 1;
    }
    (next > at).then_some((seconds, next))
}

/// A wait after a trigger: `retry after 3 seconds`, `Retry-After: 12`, `resets at 2026-11-29T12:00:00Z`.
fn after_trigger(tokens: &[Token<'_>], trigger: usize) -> Option<RetryAfter> {
    let opening = word(tokens, trigger).filter(|word| listed(TRIGGERS, word))?;
    // `back to 5 minutes of audio` is not a wait.
    if opening == "back" && !word(tokens, trigger + 1).is_some_and(|next| matches!(next, "in" | "off" | "after")) {
        return None;
    }
    let mut lead = Lead { last: opening, name: opening != "retry", assigned: false, scale: None };
    let mut fillers = 0;
    let mut at = trigger + 1;
    loop {
        if let Some(wait) = lead.told_at(tokens, at) {
            return Some(wait);
        }
        match tokens.get(at)? {
            Token::Sign(':' | '=') => lead.assigned = true,
            Token::Sign('~' | '≈' | '-' | ',' | '>') => {}
            Token::Word(word) if fillers < MAX_FILLERS => {
                fillers += 1;
                match unit(word) {
                    // A unit in the name, as in `retry_after_ms`.
                    Some(length) if !lead.assigned => lead.scale = Some(length),
                    _ if listed(FILLERS, word.as_str()) => {
                        lead.last = word;
                        lead.name = listed(NAMES, word.as_str());
                    }
                    _ => return None,
                }
            }
            _ => return None,
        }
        at += 1;
    }
}

/// The words between a trigger and a possible time.
struct Lead<'t> {
    /// The newest word.
    last: &'t str,
    /// Set if that word names a wait.
    name: bool,
    /// Set if a colon or an equals sign was read.
    assigned: bool,
    /// The unit in the name, in seconds.
    scale: Option<f64>,
}

impl Lead<'_> {
    fn told_at(&self, tokens: &[Token<'_>], at: usize) -> Option<RetryAfter> {
        if let Some((seconds, next)) = time(tokens, at) {
            // `resets at 07:30:00 UTC` is a time of day without the day.
            let of_day = matches!(self.last, "at" | "by" | "on" | "until") && clock(tokens, at).is_some();
            let window = word(tokens, next).is_some_and(|word| listed(WINDOWS, word));
            return (!of_day && !window).then(|| RetryAfter::In(duration(seconds)));
        }
        match tokens.get(at)? {
            Token::Date(text) => date(text),
            Token::Number(number) => {
                let next = tokens.get(at + 1);
                let ends = next.is_none_or(|next| matches!(next, Token::Stop | Token::Sign(',' | '}' | ']' | '|')));
                if !ends {
                    return None;
                }
                if let Some(scale) = self.scale {
                    return of_number(*number, scale);
                }
                // A number without a unit means seconds in a field and after `retry after`, unless it may be a year.
                let year = !self.assigned && number.fract() == 0.0 && (1900.0..=2100.0).contains(number);
                let seconds = if self.assigned { self.name } else { self.last == "after" && !year };
                (*number >= UNIX_S || seconds).then(|| of_number(*number, 1.0)).flatten()
            }
            _ => None,
        }
    }
}

/// A wait before a follower: `30 seconds before retrying`, `in 2 minutes you can try again`.
fn before_follower(tokens: &[Token<'_>], start: usize) -> Option<RetryAfter> {
    let (seconds, mut at) = time(tokens, start)?;
    // In `60 requests per 10 seconds, retry later` the time is the window of a limit.
    let before = |back: usize| start.checked_sub(back).and_then(|at| word(tokens, at));
    if before(1).is_some_and(|word| listed(WINDOWS, word)) || before(2).is_some_and(|word| listed(COUNTED, word)) {
        return None;
    }
    for _ in 0..MAX_FILLERS {
        if sign(tokens, at, &[',']) {
            at += 1;
        }
        let next = word(tokens, at)?;
        if listed(FOLLOWERS, next) {
            return Some(RetryAfter::In(duration(seconds)));
        }
        if !listed(BRIDGES, next) {
            return None;
        }
        at += 1;
    }
    None
}
