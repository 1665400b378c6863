//! Estimated size of a regular expression before it is compiled: a pattern of a few bytes can compile to megabytes.
//!
//! Knows neither the author of a pattern nor the text that it is matched against. The `regex` crate matches in time linear
//! in the text.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind};

/// Deepest nesting of groups.
const MAX_NESTING: u32 = 64;
/// Minimum for a class with characters beyond ASCII: each of their bytes is a state.
const STATES_OF_A_WIDE_CLASS: u64 = 16;

/// Estimated number of states of the automaton that `pattern` compiles to. Counts on the syntax tree, in time linear in
/// the pattern's length.
///
/// # Errors
/// The pattern cannot be compiled; the message says why.
pub fn states(pattern: &str) -> Result<u64, String> {
    let hir = ParserBuilder::new().nest_limit(MAX_NESTING).build().parse(pattern).map_err(|error| {
        // The message shows the pattern with a marker below it; its last line is the reason.
        let whole = error.to_string();
        whole.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })?;
    Ok(of(&hir))
}

fn of(hir: &Hir) -> u64 {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(Class::Bytes(_)) => 1,
        HirKind::Class(Class::Unicode(class)) => {
            let ranges = class.ranges();
            let wide = ranges.last().is_some_and(|last| !last.end().is_ascii());
            ranges.len() as u64 + if wide { STATES_OF_A_WIDE_CLASS } else { 0 }
        }
        HirKind::Repetition(repetition) => {
            // A repetition without a maximum compiles to `min` copies and one that loops.
            let copies = repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1);
            of(&repetition.sub).saturating_add(1).saturating_mul(u64::from(copies))
        }
        HirKind::Capture(capture) => of(&capture.sub).saturating_add(2),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().fold(1, |sum: u64, part| sum.saturating_add(of(part)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_has_as_many_states_as_its_repetitions_stand_for() {
        for (pattern, least, most) in [
            ("^[A-Z]{2}-[0-9]{6}$", 10, 60),
            ("a*", 1, 4),
            ("a{3,}", 4, 10),
            (".{1,1000}", 10_000, 40_000),
            (r"\p{L}", 300, 1_000),
            ("((a{1000}){1000}){1000}", 1_000_000_000, u64::MAX),
            ("((((a{99999999}){99999999}){99999999}){99999999}){99999999}", u64::MAX, u64::MAX),
        ] {
            let states = states(pattern).expect("a pattern");
            assert!((least..=most).contains(&states), "{pattern}: {states}");
        }
    }

    #[test]
    fn pattern_that_is_none_says_why() {
        for (pattern, why) in [("(?!x)", "look-around"), ("[", "unclosed"), (r"\p{Nonsense}", "property")] {
            let message = states(pattern).expect_err("none");
            assert!(message.contains(why) && !message.contains('\n'), "{pattern}: {message}");
        }
        assert!(states(&"(".repeat(1_000)).is_err());
        assert!(states(&format!("{}a{}", "(".repeat(100), ")".repeat(100))).is_err(), "nested too deep");
    }
}
