//! Markup of cues: tags and character references. An unknown tag is text.
//!
//! Knows no cue, and no name except that in a voice tag.

use super::time;

/// Longest tag, bytes: a `<` without `>` within this many bytes is text. Bounds the search.
const MAX_TAG_BYTES: usize = 512;
/// Longest character reference between `&` and `;`, bytes.
const MAX_REFERENCE_BYTES: usize = 10;
/// Tags that are formatting. `font` and `s` are SubRip's.
const TAGS: [&str; 13] = ["c", "i", "b", "u", "s", "v", "ruby", "rt", "lang", "font", "span", "p", "br"];

/// A part of a line in one voice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// The name in the voice tag that the text is in.
    pub(super) voice: Option<String>,
    pub(super) text: String,
}

/// Splits a line of a cue at its voice tags and removes all other markup. `voice` is the open voice, which continues in
/// the cue's next line.
pub(super) fn runs(line: &str, voice: &mut Option<String>) -> Vec<Run> {
    let mut runs = vec![Run { voice: voice.clone(), text: String::new() }];
    let mut rest = line;
    while let Some(at) = rest.find(['<', '{', '&']) {
        let (before, from) = rest.split_at(at);
        push(&mut runs, before);
        match mark(from) {
            Some((Mark::Nothing, length)) => rest = from.get(length..).unwrap_or_default(),
            Some((Mark::Text(character), length)) => {
                push(&mut runs, character.encode_utf8(&mut [0; 4]));
                rest = from.get(length..).unwrap_or_default();
            }
            Some((Mark::Voice(name), length)) => {
                (*voice).clone_from(&name);
                runs.push(Run { voice: name, text: String::new() });
                rest = from.get(length..).unwrap_or_default();
            }
            None => {
                let (mark, after) = from.split_at(1);
                push(&mut runs, mark);
                rest = after;
            }
        }
    }
    push(&mut runs, rest);
    runs.retain(|run| !run.text.trim().is_empty());
    runs
}

fn push(runs: &mut [Run], text: &str) {
    if let Some(run) = runs.last_mut() {
        run.text.push_str(text);
    }
}

enum Mark {
    Nothing,
    Text(char),
    /// A voice begins, or with `None` ends.
    Voice(Option<String>),
}

/// The mark that `text` begins with, and its length in bytes; `None` if the first character is text.
fn mark(text: &str) -> Option<(Mark, usize)> {
    match text.as_bytes().first()? {
        b'<' => {
            let inner = enclosed(text, '>', MAX_TAG_BYTES)?;
            Some((tag(inner)?, inner.len() + 2))
        }
        // Positions in the format of SubStation Alpha, which SubRip files use too.
        b'{' if text.starts_with("{\\") => {
            let inner = enclosed(text, '}', MAX_TAG_BYTES)?;
            Some((Mark::Nothing, inner.len() + 2))
        }
        b'&' => {
            let inner = enclosed(text, ';', MAX_REFERENCE_BYTES)?;
            Some((Mark::Text(reference(inner)?), inner.len() + 2))
        }
        _ => None,
    }
}

/// The text between the first byte of `text` and `end`, at most `limit` bytes.
fn enclosed(text: &str, end: char, limit: usize) -> Option<&str> {
    let mut to = text.len().min(limit + 2);
    while !text.is_char_boundary(to) {
        to -= 1;
    }
    let within = text.get(1..to)?;
    within.get(..within.find(end)?)
}

fn tag(inner: &str) -> Option<Mark> {
    let inner = inner.trim();
    if inner.starts_with(|first: char| first.is_ascii_digit()) {
        return time::ms(inner).map(|_| Mark::Nothing);
    }
    let (closes, inner) = inner.strip_prefix('/').map_or((false, inner), |inner| (true, inner));
    let end = inner.find(['.', ' ', '\t', '/']).unwrap_or(inner.len());
    let name = inner.get(..end).unwrap_or_default().to_ascii_lowercase();
    match name.as_str() {
        "v" if closes => Some(Mark::Voice(None)),
        "v" => {
            let annotation = inner.split_once([' ', '\t']).map_or("", |(_, annotation)| annotation);
            let plain = dereferenced(annotation);
            let words: Vec<&str> = plain.split_whitespace().collect();
            Some(Mark::Voice(Some(words.join(" ")).filter(|name| !name.is_empty())))
        }
        "br" => Some(Mark::Text(' ')),
        name if TAGS.contains(&name) => Some(Mark::Nothing),
        // `</>` closes whatever is open.
        "" if closes => Some(Mark::Nothing),
        _ => None,
    }
}

fn dereferenced(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        match mark(from) {
            Some((Mark::Text(character), length)) => {
                out.push(character);
                rest = from.get(length..).unwrap_or_default();
            }
            _ => {
                out.push('&');
                rest = from.get(1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out
}

/// The character that a reference names; a non-breaking space becomes a space.
fn reference(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        "lrm" => '\u{200e}',
        "rlm" => '\u{200f}',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code).filter(|character| !character.is_control())?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Vec<(Option<String>, String)> {
        runs(line, &mut None).into_iter().map(|run| (run.voice, run.text)).collect()
    }

    #[test]
    fn markup_is_taken_out_and_other_text_is_kept() {
        for (line, expected) in [
            ("plain", "plain"),
            ("<c>a</c><00:00:01.000><c.yellow.bg_blue> b</c>", "a b"),
            ("<i>a</i> <B>b</B> <u>c</u></>", "a b c"),
            ("<font color=\"#fff\">a</font><br/>b", "a b"),
            ("{\\an8}a {b} {\\i1", "a {b} {\\i1"),
            ("a &amp; b &lt;c&gt; &quot;d&quot; &#39;e&#x27;&nbsp;f", "a & b <c> \"d\" 'e' f"),
            ("AT&T &unknown; &#0; & x", "AT&T &unknown; &#0; & x"),
            ("3 < 5 and <laughs> 7 > 6 <i", "3 < 5 and <laughs> 7 > 6 <i"),
            ("<lang en-GB>a</lang><ruby>b<rt>c</rt></ruby>", "abc"),
        ] {
            assert_eq!(read(line), [(None, expected.to_owned())], "{line}");
        }
        assert!(read(" <c></c> ").is_empty());
    }

    #[test]
    fn voice_tags_divide_a_line_and_continue_in_the_next() {
        let some = |name: &str, text: &str| (Some(name.to_owned()), text.to_owned());
        assert_eq!(
            read("<v Ann>Hi.</v> <v.loud.first  Bob &amp;  Co>Yes."),
            [some("Ann", "Hi."), some("Bob & Co", "Yes.")]
        );
        assert_eq!(read("a<v>b</v>c"), [(None, "a".to_owned()), (None, "b".to_owned()), (None, "c".to_owned())]);
        let mut voice = None;
        runs("<v Ann>one", &mut voice);
        assert_eq!(runs("two", &mut voice)[0].voice.as_deref(), Some("Ann"));
        runs("three</v>", &mut voice);
        assert_eq!(voice, None);
    }

    #[test]
    fn marks_without_an_end_take_linear_time() {
        let line = "<".repeat(20_000) + &"&".repeat(20_000) + &"{\\".repeat(10_000);
        assert_eq!(read(&line), [(None, line.clone())]);
    }
}
