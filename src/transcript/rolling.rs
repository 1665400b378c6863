//! Rolling captions, as live captioners and YouTube make them: a cue repeats what the one before still showed, and adds
//! to it. Determines which words of each cue are new.
//!
//! Knows no time and no speaker.

/// Minimum number of repetitions in a file whose captions roll.
const MIN_REPEATS: usize = 3;
/// Minimum number of words that end one cue and begin the next to count as a repetition, unless they are a whole line.
const MIN_WORDS: usize = 3;
/// Number of a cue's last words that are searched for repetitions: two lines of captions have fewer.
const MAX_WORDS: usize = 64;

/// For each cue, how many words at its beginning repeat the one before; all 0 if the file's captions do not roll.
/// `cues` are the lines of each cue, in the order in which they are shown.
pub(super) fn repeated(cues: &[Vec<&str>]) -> Vec<usize> {
    let mut repeated = Vec::with_capacity(cues.len());
    let (mut repeats, mut pairs) = (0, 0);
    let mut before: Option<Ends<'_>> = None;
    for lines in cues {
        // A cue that shows nothing leaves the cue before it as the one to compare with.
        let Some(ends) = Ends::of(lines) else {
            repeated.push(0);
            continue;
        };
        let count = before.as_ref().map_or(0, |before| overlap(before, &ends));
        pairs += usize::from(before.is_some());
        repeats += usize::from(count > 0);
        before = Some(ends);
        repeated.push(count);
    }
    if repeats < MIN_REPEATS || repeats * 2 < pairs {
        repeated.fill(0);
    }
    repeated
}

/// The words at both ends of a cue, of which each end has at most [`MAX_WORDS`]. They are found once for each cue: a cue
/// can be as long as the file.
struct Ends<'a> {
    first: Vec<&'a str>,
    last: Vec<&'a str>,
    /// Number of words in the first line that has any, and in the last one.
    first_line: usize,
    last_line: usize,
}

impl<'a> Ends<'a> {
    /// `None` if the cue has no words.
    fn of(lines: &[&'a str]) -> Option<Self> {
        let count = |line: &&str| line.split_whitespace().count();
        let first_line = lines.iter().map(count).find(|words| *words > 0)?;
        let last_line = lines.iter().rev().map(count).find(|words| *words > 0)?;
        let first = lines.iter().flat_map(|line| line.split_whitespace()).take(MAX_WORDS).collect();
        let words = lines.iter().rev().flat_map(|line| line.split_whitespace().rev());
        let mut last: Vec<&str> = words.take(MAX_WORDS).collect();
        last.reverse();
        Some(Self { first, last, first_line, last_line })
    }
}

/// The longest run of words that ends `before` and begins `after`, if it is too long for a coincidence.
fn overlap(before: &Ends<'_>, after: &Ends<'_>) -> usize {
    let longest = before.last.len().min(after.first.len());
    let found = (1..=longest).rev().find(|length| {
        let end = before.last.get(before.last.len() - length..);
        end.is_some_and(|end| after.first.get(..*length).is_some_and(|start| start == end))
    });
    let length = found.unwrap_or(0);
    let is_line = length > 0 && (length == before.last_line || length == after.first_line);
    if length >= MIN_WORDS || is_line { length } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_of_rolling_captions_is_new_once() {
        let cues = [
            vec![" ", "so today we look at"],
            vec!["so today we look at", " "],
            vec!["so today we look at", "the new house"],
            vec!["the new house", " "],
            vec!["the new house", "house number nine"],
        ];
        assert_eq!(repeated(&cues), [0, 5, 5, 3, 3]);
        let grown = [vec!["I"], vec!["I want"], vec!["I want to"], vec!["I want to go"], vec!["home"]];
        assert_eq!(repeated(&grown), [0, 1, 2, 3, 0]);
        let joined = [
            vec!["one two three four five"],
            vec!["three four five six seven"],
            vec![],
            vec!["five six seven eight nine"],
            vec!["seven eight nine ten"],
        ];
        assert_eq!(repeated(&joined), [0, 3, 0, 3, 3]);
    }

    #[test]
    fn repeated_speech_stays() {
        let cues =
            [vec!["No."], vec!["No."], vec!["No, I said", "no"], vec!["no more of it"], vec!["Well."], vec!["So."]];
        assert_eq!(repeated(&cues), [0; 6]);
        assert_eq!(repeated(&[vec!["a b c"], vec!["a b c"]]), [0, 0], "twice is no rule");
    }

    #[test]
    fn long_cue_is_not_read_again_for_each_empty_one_after_it() {
        let long = "word ".repeat(100_000);
        let mut cues = vec![vec![long.as_str()]];
        cues.resize(20_000, vec![""]);
        cues.push(vec!["word"]);
        assert_eq!(repeated(&cues), vec![0; 20_001]);
    }
}
