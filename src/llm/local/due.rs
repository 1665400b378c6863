//! Finds when something is due, in the words of the speaker: `by Friday`, `tomorrow before noon`, `within 24 hours`.
//!
//! Knows no calendar, so it never computes a date. English.

use super::words;
use crate::base::text;

/// Words that name a time by themselves.
static DAYS: &str = "today tonight tomorrow monday tuesday wednesday thursday friday saturday sunday noon midnight mondays \
    tuesdays wednesdays thursdays fridays saturdays sundays weekend eod";
/// Months; they name a time with a number beside them.
static MONTHS: &str = "january february march april may june july august september october november december";
/// Units of time, after a number or one of [`COUNTING`].
static UNITS: &str =
    "minute minutes hour hours day days week weeks month months year years morning afternoon evening quarter";
/// Words that make a following unit a time.
static COUNTING: &str = "next this the few couple within end every";
/// Words that make a following month a time.
static IN_MONTH: &str = "in by until till before";
/// Words that belong to a time that follows them.
static BEFORE: &str =
    "by before until till on within in at this next the end of after a an few couple early late first no later than";
/// Words that belong to a time before them.
static BEHIND: &str = "morning afternoon evening night at before by around on noon midnight am pm a.m p.m o'clock week weekend and or to \
    between the of latest next";
/// Words that cannot be the last word of a time.
static OPEN: &str = "at before by around on and or to between the of next";
/// Words after which a number belongs to a time.
static BEFORE_NUMBER: &str = "at before by around between to and the";
static CLOCK: &str = "am pm a.m p.m o'clock";

fn is_in(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|known| known == word)
}

/// The words of a sentence: with punctuation, and without.
struct Tokens<'a> {
    tokens: Vec<&'a str>,
    bares: Vec<String>,
}

impl Tokens<'_> {
    /// The word `by` places after `index` (before it, if negative), without punctuation; empty if there is none.
    fn near(&self, index: usize, by: isize) -> &str {
        index.checked_add_signed(by).and_then(|index| self.bares.get(index)).map_or("", String::as_str)
    }

    fn names_time(&self, index: usize) -> bool {
        let (word, before, behind) = (self.near(index, 0), self.near(index, -1), self.near(index, 1));
        let counted = words::is_number(before)
            || is_in(COUNTING, before)
            || (is_in("a an", before) && is_in("in within after", self.near(index, -2)));
        let dated = words::is_number(before)
            || words::is_number(behind)
            || (before == "of" && words::is_number(self.near(index, -2)))
            || is_in(IN_MONTH, before);
        is_in(DAYS, word)
            || (is_in(MONTHS, word) && dated)
            || (is_in(UNITS, word) && counted)
            || (words::is_number(word) && is_in(CLOCK, behind))
    }

    /// Returns true if the word before `first` belongs to the time that begins at `first`.
    fn belongs_before(&self, first: usize) -> bool {
        let (word, next) = (self.near(first, -1), self.near(first, 0));
        let of_number = is_in(UNITS, next) || is_in(MONTHS, next) || is_in("of or to and", next);
        is_in(BEFORE, word)
            || (words::is_number(word) && of_number)
            || (is_in("or to and", word) && words::is_number(next) && words::is_number(self.near(first, -2)))
    }

    /// Returns true if the word after `last` belongs to the time that ends at `last`.
    fn belongs_behind(&self, last: usize) -> bool {
        let (word, next) = (self.near(last, 1), self.near(last, 0));
        let numbered = words::is_number(word) && (is_in(BEFORE_NUMBER, next) || is_in(MONTHS, next));
        numbered || is_in(BEHIND, word) || (last + 1 < self.bares.len() && self.names_time(last + 1))
    }
}

/// The first time in a sentence, as a slice of it.
pub(super) fn due(sentence: &str) -> Option<&str> {
    let tokens: Vec<&str> = text::written(sentence).collect();
    let bares = tokens.iter().map(|token| words::bare(token)).collect();
    let words = Tokens { tokens, bares };
    let anchor = (0..words.tokens.len()).find(|index| words.names_time(*index))?;
    let (mut first, mut last) = (anchor, anchor);
    // Punctuation between two words separates them.
    while first > 0 && words.belongs_before(first) && !ends_clause(words.tokens[first - 1]) {
        first -= 1;
    }
    while last + 1 < words.tokens.len() && !ends_clause(words.tokens[last]) && words.belongs_behind(last) {
        last += 1;
    }
    while last > anchor && is_in(OPEN, words.near(last, 0)) {
        last -= 1;
    }
    while first < anchor && words.near(first, 0) == "of" {
        first += 1;
    }
    let place = |token: &str| token.as_ptr().addr() - sentence.as_ptr().addr();
    let (start, end) = (place(words.tokens[first]), place(words.tokens[last]) + words.tokens[last].len());
    Some(sentence[start..end].trim_end_matches(|mark: char| !mark.is_alphanumeric()))
}

fn ends_clause(token: &str) -> bool {
    token.ends_with([',', ';', ':', '.', '!', '?']) && !token.to_lowercase().ends_with("m.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_in_the_words_that_were_said() {
        for (sentence, expected) in [
            ("I will send you the form by Friday.", Some("by Friday")),
            ("I'll call you back tomorrow before noon, okay.", Some("tomorrow before noon")),
            ("You'll have it within 24 hours.", Some("within 24 hours")),
            ("We will refund the forty euros today.", Some("today")),
            ("The engineer comes on Monday morning at 9 o'clock.", Some("on Monday morning at 9 o'clock")),
            ("I can do it by the end of the week", Some("by the end of the week")),
            ("It will be there in two or three days.", Some("in two or three days")),
            ("Send it on the 4th of March, please.", Some("on the 4th of March")),
            ("I'll ring at 3 p.m. on Tuesday.", Some("at 3 p.m. on Tuesday")),
            ("On Thursday I will look at it.", Some("On Thursday")),
            ("I will send you the form.", None),
            ("It costs 40 euros a day, they say.", None),
            ("Call me in a week or so.", Some("in a week")),
            ("The number is four four one by Friday.", Some("by Friday")),
            ("He came on Friday 12 times.", Some("on Friday")),
            ("That may be 12.", None),
            ("", None),
        ] {
            assert_eq!(due(sentence), expected, "{sentence}");
        }
    }
}
