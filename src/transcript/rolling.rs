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
    let mut before: Vec<&str> = Vec::new();
    for lines in cues {
        let count = overlap(&before, lines);
        if lines.iter().any(|line| !line.trim().is_empty()) {
            pairs += usize::from(!before.is_empty());
            repeats += usize::from(count > 0);
            before.clone_from(lines);
            before.retain(|line| !line.trim().is_empty());
        }
        repeated.push(count);
    }
    if repeats < MIN_REPEATS || repeats * 2 < pairs {
        repeated.fill(0);
    }
    repeated
}

/// The longest run of words that ends `before` and begins `after`, if it is too long for a coincidence.
fn overlap(before: &[&str], after: &[&str]) -> usize {
    let count = |line: &&str| line.split_whitespace().count();
    let shown: Vec<&str> = before.iter().flat_map(|line| line.split_whitespace()).collect();
    let shown = shown.get(shown.len().saturating_sub(MAX_WORDS)..).unwrap_or_default();
    let words: Vec<&str> = after.iter().flat_map(|line| line.split_whitespace()).take(MAX_WORDS).collect();
    let last_line = before.last().map_or(0, count);
    let first_line = after.iter().map(count).find(|words| *words > 0).unwrap_or(0);
    let longest = shown.len().min(words.len());
    let found = (1..=longest).rev().find(|length| {
        shown.get(shown.len() - length..).is_some_and(|end| words.get(..*length).is_some_and(|start| start == end))
    });
    let length = found.unwrap_or(0);
    let is_line = length > 0 && (length == last_line || length == first_line);
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
    fn what_people_say_twice_stays() {
        let cues =
            [vec!["No."], vec!["No."], vec!["No, I said", "no"], vec!["no more of it"], vec!["Well."], vec!["So."]];
        assert_eq!(repeated(&cues), [0; 6]);
        assert_eq!(repeated(&[vec!["a b c"], vec!["a b c"]]), [0, 0], "twice is no rule");
    }
}
