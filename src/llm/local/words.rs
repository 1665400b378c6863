//! Words of spoken text: splitting, folding and cleaning.
//!
//! Knows nothing of meaning but which words carry none.

use std::collections::HashSet;
use std::sync::LazyLock;

/// English words that carry no content, contractions and fillers of speech among them.
static STOP_WORDS: &str = "a about above after again against all am an and any are aren't as at be because been before \
    being below between both but by can can't cannot could couldn't did didn't do does doesn't doing don't down during each \
    few for from further get got had hadn't has hasn't have haven't having he he'd he'll he's her here here's hers herself \
    him himself his how how's i i'd i'll i'm i've if in into is isn't it it's its itself let's me more most mustn't my \
    myself no nor not of off on once only or other ought our ours ourselves out over own same shan't she she'd she'll \
    she's should shouldn't so some such than that that's the their theirs them themselves then there there's these they \
    they'd they'll they're they've this those through to too under until up very was wasn't we we'd we'll we're we've were \
    weren't what what's when when's where where's which while who who's whom why why's with won't would wouldn't you you'd \
    you'll you're you've your yours yourself yourselves um uh er hmm mm mhm uhhuh yeah yes yep okay ok right well just \
    like know mean think thing things really actually kind sort gonna wanna lot bit maybe say said go going one two oh ah \
    hey hi hello also even still back way see look want need make good sure now";

/// Sounds and markup that are no words.
static FILLERS: &str = "um umm uh uhh er erm hmm mm mmm mhm mm-hmm uh-huh ah oh";

/// Words that nobody says twice on purpose.
static LINKS: &str = "the a an i we he she it they you to of and in on is was my your our for that this with it's i'm";

/// What people say while they think, when it stands between commas.
static ASIDES: &[&str] = &["you know", "i mean", "sort of", "kind of"];

static STOPS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| STOP_WORDS.split_whitespace().collect());
static FILLER_SET: LazyLock<HashSet<&'static str>> = LazyLock::new(|| FILLERS.split_whitespace().collect());

/// Lower-case words with their apostrophes; letters said three times or more are said twice.
pub(super) fn plain(text: &str) -> impl Iterator<Item = String> {
    let is_word = |character: char| character.is_alphanumeric() || matches!(character, '\'' | '’' | '‘');
    text.split(move |character: char| !is_word(character)).map(fold).filter(|word| !word.is_empty())
}

/// Words that carry content, by their stems. In scripts without spaces each character is a word.
pub(super) fn content(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for word in plain(text) {
        if word.chars().any(is_unspaced) {
            out.extend(word.chars().map(String::from));
        } else if word.len() > 2 && !STOPS.contains(word.as_str()) {
            out.push(stem(&word).to_owned());
        }
    }
    out
}

/// How many words a text has.
pub(super) fn count(text: &str) -> usize {
    let unspaced = text.chars().filter(|character| is_unspaced(*character)).count();
    if unspaced > 0 { unspaced } else { text.split_whitespace().count() }
}

/// The sentences of a text, as they stand.
pub(super) fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        if rest.is_empty() {
            return None;
        }
        let mut characters = rest.char_indices().peekable();
        while let Some((at, character)) = characters.next() {
            let end = at + character.len_utf8();
            let is_end = match character {
                '.' | '?' | '!' => characters.peek().is_none_or(|(_, next)| next.is_whitespace()),
                '。' | '？' | '！' => true,
                _ => false,
            };
            if is_end {
                let (sentence, after) = rest.split_at(end);
                rest = after;
                return Some(sentence);
            }
        }
        Some(std::mem::take(&mut rest).trim_end())
    })
}

/// The sentence without sounds, asides, stammers and repetitions.
pub(super) fn cleaned(sentence: &str) -> String {
    let unmarked = without_markup(sentence);
    let mut kept: Vec<&str> = Vec::new();
    for token in unmarked.split_whitespace() {
        let bare = bare(token);
        if bare.is_empty() && kept.is_empty() || FILLER_SET.contains(bare.as_str()) {
            // The comma or stop after a sound stays with the word before it.
            continue;
        }
        if let Some(last) = kept.last().copied()
            && is_stammer(last, &bare)
        {
            kept.pop();
        }
        kept.push(token);
        drop_aside(&mut kept);
        drop_repetition(&mut kept);
    }
    let mut text = kept.join(" ");
    for mark in [" ,", " .", " ?", " !"] {
        text = text.replace(mark, &mark[1..]);
    }
    text.trim_matches([' ', ',', ';']).to_owned()
}

fn fold(word: &str) -> String {
    let mut folded = String::with_capacity(word.len());
    let (mut last, mut run) = ('\0', 0);
    for character in word.trim_matches(['\'', '’', '‘']).chars().flat_map(char::to_lowercase) {
        let character = if matches!(character, '’' | '‘') { '\'' } else { character };
        run = if character == last { run + 1 } else { 1 };
        last = character;
        if run <= 2 || !character.is_alphabetic() {
            folded.push(character);
        }
    }
    folded
}

/// A word without its commonest English endings.
fn stem(word: &str) -> &str {
    let word = word.strip_suffix("'s").unwrap_or(word);
    let shorter = ["ing", "ed", "es", "s", "ly"].iter().find_map(|ending| word.strip_suffix(ending));
    shorter.filter(|shorter| shorter.len() >= 3).unwrap_or(word)
}

fn is_unspaced(character: char) -> bool {
    matches!(character, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{e00}'..='\u{eff}')
}

fn bare(token: &str) -> String {
    token.trim_matches(|character: char| !character.is_alphanumeric()).to_lowercase()
}

/// `last` is a first try at `word`: the same word, or its first letter or two.
fn is_stammer(last: &str, word: &str) -> bool {
    let first = bare(last);
    if first.is_empty() || word.is_empty() {
        return false;
    }
    if !last.ends_with(|character: char| character.is_alphanumeric() || character == '-') {
        // "No, no" is meant, "the, the" is not.
        return first == word && last.ends_with(',') && LINKS.split(' ').any(|link| link == word);
    }
    let fragment = first.chars().count() <= 2 && !is_short_word(&first) && word.chars().count() > first.chars().count();
    first == word || (fragment && word.starts_with(&first))
}

fn is_short_word(word: &str) -> bool {
    const SHORT: &str = "a i in to of on an he we me be no so do is it at as up us my or by if go am";
    word.chars().any(|character| !character.is_ascii_alphabetic()) || SHORT.split(' ').any(|short| short == word)
}

/// Drops an aside that has just ended with a comma, after a comma or at the start.
fn drop_aside(kept: &mut Vec<&str>) {
    let Some(start) = kept.len().checked_sub(2) else { return };
    let ends = kept[start + 1].ends_with(',');
    let begins = start == 0 || kept[start - 1].ends_with(',');
    if ends && begins {
        let said = format!("{} {}", bare(kept[start]), bare(kept[start + 1]));
        if ASIDES.contains(&said.as_str()) {
            kept.truncate(start);
        }
    }
}

/// Drops two words that were said twice in a row.
fn drop_repetition(kept: &mut Vec<&str>) {
    let Some(start) = kept.len().checked_sub(4) else { return };
    let same = |one: usize, other: usize| {
        let one = bare(kept[start + one]);
        !one.is_empty() && one == bare(kept[start + other])
    };
    if same(0, 2) && same(1, 3) {
        kept.drain(start..start + 2);
    }
}

/// Without `{…}` and `[…]`, in which transcribers note sounds.
fn without_markup(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut depth = 0_usize;
    for character in text.chars() {
        match character {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ if depth == 0 => out.push(character),
            _ => {}
        }
    }
    // An opening bracket that nobody closes hides nothing.
    if depth > 0 { text.to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_is_cleaned_and_sense_is_kept() {
        for (said, clean) in [
            ("Um so we we need a a f for the uh new remote.", "so we need a for the new remote."),
            ("Don't you know that yellow means slow down?", "Don't you know that yellow means slow down?"),
            ("It is, you know, quite, I mean, late.", "It is, quite, late."),
            ("I think I think we go.", "I think we go."),
            ("Hmm.", ""),
            ("{vocalsound} Okay [laughs] then.", "Okay then."),
            ("It's five [four", "It's five [four"),
            ("No, no, the, the other.", "No, no, the other."),
        ] {
            assert_eq!(cleaned(said), clean, "{said}");
        }
    }

    #[test]
    fn sentences_end_where_they_end() {
        let split = |text| sentences(text).collect::<Vec<_>>();
        assert_eq!(split(" It is 3.5 km. Really? yes"), ["It is 3.5 km.", "Really?", "yes"]);
        assert_eq!(split("好。再见"), ["好。", "再见"]);
        assert_eq!(split("  "), [""; 0]);
    }

    #[test]
    fn content_is_stems_without_stop_words() {
        assert_eq!(content("I'm waiting for the bills, the bill's late"), ["wait", "bill", "bill", "late"]);
        assert_eq!(content("会议"), ["会", "议"]);
        assert_eq!(plain("Nooooo — DON’T!").collect::<Vec<_>>(), ["noo", "don't"]);
    }
}
