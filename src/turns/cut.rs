//! Cuts a final by the speakers of its words, and distributes words and text over existing cuts.
//!
//! Knows no turn table: plain functions over words. Part `i` of a turn with the cut times `c` contains the words whose
//! middle is in `c[i-1] .. c[i]`.

use crate::base::text;
use crate::types::Word;

/// Times at which a final is cut: between runs of words of one speaker. A word without a speaker belongs to the run
/// around it. There is no cut between two runs that times cannot separate (their words have the same middle).
pub(super) fn find_cuts(words: &[Word]) -> Vec<u64> {
    let mut cuts: Vec<u64> = Vec::new();
    let mut current: Option<&str> = None;
    // The latest middle so far: a cut must be above it, so that no earlier word changes sides.
    let mut latest_middle = 0;
    for (index, word) in words.iter().enumerate() {
        let speaker = word.speaker.as_deref();
        if let (Some(current), Some(speaker), Some(previous)) = (current, speaker, index.checked_sub(1))
            && current != speaker
        {
            let earliest_middle = words[index..].iter().map(Word::middle_ms).min().unwrap_or(latest_middle);
            if earliest_middle > latest_middle {
                let between = u64::midpoint(words[previous].end_ms, word.start_ms);
                cuts.push(between.clamp(latest_middle + 1, earliest_middle));
            }
        }
        current = speaker.or(current);
        latest_middle = latest_middle.max(word.middle_ms());
    }
    cuts
}

/// The part that contains the instant `middle_ms`.
pub(super) fn part_of(cuts: &[u64], middle_ms: u64) -> usize {
    cuts.partition_point(|cut| *cut <= middle_ms)
}

/// The speaker with the most time in words; if several have the same time, `current` if it is one of them, else the one
/// that spoke first. `None` if no word has a speaker.
pub(super) fn majority<'a>(words: impl IntoIterator<Item = &'a Word>, current: Option<&str>) -> Option<&'a str> {
    let mut times: Vec<(&str, u64)> = Vec::new();
    for word in words {
        let Some(speaker) = word.speaker.as_deref() else { continue };
        // A word of zero length still shows who spoke.
        let time = word.end_ms.saturating_sub(word.start_ms).max(1);
        match times.iter_mut().find(|(known, _)| *known == speaker) {
            Some((_, sum)) => *sum += time,
            None => times.push((speaker, time)),
        }
    }
    let most = times.iter().map(|(_, sum)| *sum).max()?;
    times.retain(|(_, sum)| *sum == most);
    let kept = times.iter().find(|(speaker, _)| current == Some(*speaker));
    kept.or(times.first()).map(|(speaker, _)| *speaker)
}

/// The text of each of `count` parts: slices of `text` around their words if all words are found in it in order;
/// otherwise their words, joined by spaces if their script uses them. `parts[i]` is the part of `words[i]`.
pub(super) fn texts(text: &str, words: &[Word], parts: &[usize], count: usize) -> Vec<String> {
    let mut texts = vec![String::new(); count];
    let in_order = parts.is_sorted();
    if let (true, Some(spans)) = (in_order, locate(text, words)) {
        let mut from = 0;
        let mut index = 0;
        while index < words.len() {
            let part = parts[index];
            let last = parts.partition_point(|other| *other <= part) - 1;
            let until = spans.get(last + 1).map_or(text.len(), |next| punctuation_after(text, spans[last].1, next.0));
            texts[part] = text[from..until].trim().to_owned();
            from = until;
            index = last + 1;
        }
        return texts;
    }
    for (word, part) in words.iter().zip(parts) {
        let text = &mut texts[*part];
        let word = word.text.trim();
        text.push_str(text::gap(text, word));
        text.push_str(word);
    }
    texts
}

/// Byte spans of the words in `text`, each after the one before with nothing but spaces and punctuation between.
fn locate(source: &str, words: &[Word]) -> Option<Vec<(usize, usize)>> {
    let mut from = 0;
    words
        .iter()
        .map(|word| {
            let word = word.text.trim();
            let mut at = from;
            let end = loop {
                if let Some(length) = text::prefix_of(&source[at..], word) {
                    break at + length;
                }
                let next = source[at..].chars().next().filter(|next| !next.is_alphanumeric())?;
                at += next.len_utf8();
            };
            from = end;
            Some((at, end))
        })
        .collect()
}

/// End of the punctuation that directly follows `from`; at most `limit`.
fn punctuation_after(text: &str, from: usize, limit: usize) -> usize {
    let trailing = text[from..limit].chars().take_while(|next| !next.is_whitespace() && !next.is_alphanumeric());
    from + trailing.map(char::len_utf8).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str, start_ms: u64, end_ms: u64, speaker: &str) -> Word {
        let speaker = (!speaker.is_empty()).then(|| speaker.to_owned());
        Word { text: text.to_owned(), start_ms, end_ms, speaker, confidence: None }
    }

    #[test]
    fn runs_are_cut_between_words_and_unlabelled_words_stay_in_their_run() {
        let words =
            [word("a", 0, 100, "A"), word("b", 100, 200, ""), word("c", 300, 400, "B"), word("d", 420, 500, "A")];
        assert_eq!(find_cuts(&words), [250, 410]);
        assert_eq!(words.each_ref().map(|word| part_of(&[250, 410], word.middle_ms())), [0, 0, 1, 2]);
        assert_eq!(find_cuts(&[word("a", 0, 0, "A"), word("b", 0, 0, "B")]), [0_u64; 0], "no time between them");
    }

    #[test]
    fn overlapping_words_are_cut_so_that_each_stays_on_its_side() {
        let words = [word("a", 0, 500, "A"), word("b", 200, 400, "B")];
        let cuts = find_cuts(&words);
        assert_eq!(words.each_ref().map(|word| part_of(&cuts, word.middle_ms())), [0, 1]);
    }

    #[test]
    fn part_texts_are_slices_with_their_punctuation_or_else_joined_words() {
        let words = [word("Hi", 0, 1, "A"), word("there", 2, 3, "A"), word("Yes", 4, 5, "B")];
        assert_eq!(texts("Hi, there! (Yes.)", &words, &[0, 0, 1], 2), ["Hi, there!", "(Yes.)"]);
        assert_eq!(texts("hi there. yes", &words, &[0, 0, 1], 2), ["hi there.", "yes"]);
        assert_eq!(texts("Hi again there Yes", &words, &[0, 0, 1], 2), ["Hi there", "Yes"]);
        assert_eq!(texts("Hi there Yes", &words, &[0, 1, 0], 2), ["Hi Yes", "there"]);
        assert_eq!(texts("Hi there Yes", &words, &[2, 2, 2], 3), ["", "", "Hi there Yes"]);
        let words = [word("解約", 0, 1, "A"), word("したい", 2, 3, "A"), word("はい", 4, 5, "B")];
        assert_eq!(texts("解約したい。はい。", &words, &[0, 0, 1], 2), ["解約したい。", "はい。"]);
        assert_eq!(
            texts("別の文", &words, &[0, 0, 1], 2),
            ["解約したい", "はい"],
            "no space where the script has none"
        );
        let words = [word("mo\u{308}chte", 0, 1, "A"), word("nein", 2, 3, "B")];
        assert_eq!(texts("Möchte ich? Nein.", &words, &[0, 1], 2), ["mo\u{308}chte", "nein"]);
        assert_eq!(texts("Möchte! Nein.", &words, &[0, 1], 2), ["Möchte!", "Nein."], "over normal forms");
    }

    #[test]
    fn the_majority_is_of_time_not_of_words() {
        assert_eq!(majority(&[word("a", 0, 10, "A"), word("b", 10, 20, "A"), word("c", 20, 90, "B")], None), Some("B"));
        let tied = [word("a", 0, 10, "A"), word("b", 10, 20, "B")];
        assert_eq!(
            (majority(&tied, None), majority(&tied, Some("B")), majority(&tied, Some("C"))),
            (Some("A"), Some("B"), Some("A"))
        );
        assert_eq!(majority(&[word("a", 0, 10, "")], Some("A")), None);
    }
}
