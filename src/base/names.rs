//! Messages about an unknown name: which names exist, and which of them was probably meant.
//!
//! Does not know what the names stand for.

use std::fmt::Write as _;

/// A name from outside is shown up to this length, characters.
const MAX_SHOWN: usize = 200;
/// A longer name is not compared, because the time of a comparison grows with both lengths.
const MAX_COMPARED: usize = 128;

/// `no KIND "found"; there are: a, b; did you mean "a"?`
pub fn unknown<S: AsRef<str>>(kind: &str, found: &str, known: &[S]) -> String {
    format!("no {kind} {}; there are: {}{}", shown(found), list(known), hint(found, known))
}

/// A text from outside, quoted and truncated for a message.
pub fn shown(found: &str) -> String {
    let shown: String = found.chars().take(MAX_SHOWN).collect();
    format!("{shown:?}")
}

/// The names, separated by commas; `none` if there are none.
pub fn list<S: AsRef<str>>(known: &[S]) -> String {
    let names: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// `; did you mean "a"?`, or nothing if no name is similar.
pub fn hint<S: AsRef<str>>(found: &str, known: &[S]) -> String {
    let mut hint = String::new();
    if let Some(name) = nearest(found, known) {
        // Writing to a String cannot fail.
        let _ = write!(hint, "; did you mean {name:?}?");
    }
    hint
}

/// The name that `found` was probably meant to be: at most a third of its characters may be wrong. Case and the kind of
/// separator are ignored. Of several equally similar names, the first.
pub fn nearest<'a, S: AsRef<str>>(found: &str, known: &'a [S]) -> Option<&'a str> {
    let length = found.chars().count();
    if length == 0 || length > MAX_COMPARED {
        return None;
    }
    let folded = fold(found);
    let limit = (length / 3).max(1);
    let near = known.iter().map(AsRef::as_ref).filter(|name| {
        // Each additional or missing character counts as at least one mistake.
        name.chars().count().abs_diff(length) <= limit && *name != found
    });
    let scored = near.map(|name| (strsim::osa_distance(&folded, &fold(name)), name));
    // At least one character must match.
    scored
        .filter(|(mistakes, _)| *mistakes <= limit && *mistakes < length)
        .min_by_key(|scored| scored.0)
        .map(|scored| scored.1)
}

fn fold(name: &str) -> String {
    name.chars().flat_map(char::to_lowercase).map(|character| if character == '-' { '_' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_name_is_told_with_the_nearest_one() {
        let known = ["summary", "sentiment", "action_items"];
        for (found, meant) in [
            ("sumary", Some("summary")),
            ("smumary", Some("summary")),
            ("SUMMARY", Some("summary")),
            ("action-items", Some("action_items")),
            ("moood", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(found, &known), meant, "{found}");
        }
        assert_eq!(nearest("ab", &["xy", "abc"]), Some("abc"));
        assert_eq!(
            unknown("analysis", "sumary", &known),
            "no analysis \"sumary\"; there are: summary, sentiment, action_items; did you mean \"summary\"?"
        );
        assert_eq!(unknown("endpoint", "zz", &[""; 0]), "no endpoint \"zz\"; there are: none");
        let long = "a".repeat(1_000_000);
        assert!(unknown("model", &long, &known).len() < 400);
    }
}
