//! Messages about a name that nothing has: what there is instead, and which of it was probably meant.
//!
//! Knows no kind of name.

use std::fmt::Write as _;

/// A name from outside is shown up to so many characters.
const MAX_SHOWN: usize = 200;
/// A longer name is compared with nothing: the comparison takes time by both lengths.
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

/// The names, separated by commas; `none` where there are none.
pub fn list<S: AsRef<str>>(known: &[S]) -> String {
    let names: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// `; did you mean "a"?`, or nothing where no name is near.
pub fn hint<S: AsRef<str>>(found: &str, known: &[S]) -> String {
    let mut hint = String::new();
    if let Some(name) = nearest(found, known) {
        // Writing to a String cannot fail.
        let _ = write!(hint, "; did you mean {name:?}?");
    }
    hint
}

/// The name that `found` was probably meant to be: at most a third of it is mistyped. Case and the kind of separator count
/// for nothing. Of several equally near ones, the first.
pub fn nearest<'a, S: AsRef<str>>(found: &str, known: &'a [S]) -> Option<&'a str> {
    let length = found.chars().count();
    if length == 0 || length > MAX_COMPARED {
        return None;
    }
    let folded = fold(found);
    let limit = (length / 3).max(1);
    let near = known.iter().map(AsRef::as_ref).filter(|name| {
        // Each character more or less is one mistake at least.
        name.chars().count().abs_diff(length) <= limit && *name != found
    });
    let scored = near.map(|name| (strsim::osa_distance(&folded, &fold(name)), name));
    // Something must be right.
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
