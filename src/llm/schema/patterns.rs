//! Limits on the regular expressions of a schema, checked before they are compiled.
//!
//! Does not know where in a schema a pattern stands.

use super::SchemaError;
use crate::base::budget::{Bound, Exceeded};
use crate::base::pattern;

/// Maximum number of patterns in a schema. Each keeps a cache that grows with what it matches, up to 2 MiB.
pub(super) const SCHEMA_PATTERNS: Bound = Bound::new("schema_patterns", 64);
/// Maximum length of a pattern, bytes.
pub(super) const SCHEMA_PATTERN_BYTES: Bound = Bound::new("schema_pattern_bytes", 1_024);
/// Maximum total states of a schema's patterns.
pub(super) const SCHEMA_PATTERN_STATES: Bound = Bound::new("schema_pattern_states", 100_000);
/// Maximum characters that the compiler parses for a schema's patterns: it parses a pattern again for each class in it.
const SCHEMA_PATTERN_STEPS: Bound = Bound::new("schema_pattern_steps", 1_000_000);

/// The patterns so far.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    count: u64,
    states: u64,
    steps: u64,
}

impl Patterns {
    /// Adds a pattern and returns its states.
    ///
    /// # Errors
    /// The pattern is invalid, or a limit is reached.
    pub(super) fn add(&mut self, pattern: &str) -> Result<u64, SchemaError> {
        self.count += 1;
        SCHEMA_PATTERNS.check(self.count)?;
        SCHEMA_PATTERN_BYTES.check(pattern.len() as u64)?;
        let (ours, classes) = translate(pattern);
        self.steps += (1 + classes) * ours.len() as u64;
        SCHEMA_PATTERN_STEPS.check(self.steps)?;
        let states = pattern::states(&ours).map_err(|why| {
            let message = format!("the pattern {pattern:?} cannot be used: {why}");
            SchemaError::Invalid { at: None, message }
        })?;
        self.states = self.states.saturating_add(states);
        SCHEMA_PATTERN_STATES.check(self.states)?;
        Ok(states)
    }

    /// Number of patterns.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Total states.
    pub(super) fn states(&self) -> u64 {
        self.states
    }
}

impl From<Exceeded> for SchemaError {
    fn from(exceeded: Exceeded) -> Self {
        Self::TooComplex(exceeded)
    }
}

/// Translates the classes of an ECMA 262 pattern, which are ASCII only, as the schema compiler does. Returns the pattern
/// and the number of classes in it.
fn translate(pattern: &str) -> (String, u64) {
    let mut out = String::with_capacity(pattern.len());
    let mut classes = 0;
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        let Some(escaped) = characters.next() else {
            out.push('\\');
            break;
        };
        let class = match escaped {
            'd' => "[0-9]",
            'D' => "[^0-9]",
            'w' => "[A-Za-z0-9_]",
            'W' => "[^A-Za-z0-9_]",
            's' => "[ \\t-\\r\\u{a0}\\u{feff}\\u{2003}\\u{2029}]",
            'S' => "[^ \\t-\\r\\u{a0}\\u{feff}\\u{2003}\\u{2029}]",
            // A control character such as `\cA`.
            'c' => {
                classes += 1;
                characters.next();
                out.push('x');
                continue;
            }
            other => {
                out.extend(['\\', other]);
                continue;
            }
        };
        classes += 1;
        out.push_str(class);
    }
    (out, classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(pattern: &str) -> Result<u64, SchemaError> {
        Patterns::default().add(pattern)
    }

    fn limit(error: Result<u64, SchemaError>) -> &'static str {
        match error {
            Err(SchemaError::TooComplex(Exceeded::Limit(bound))) => bound.name,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn common_patterns_have_few_states() {
        for pattern in [
            r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2}))?$",
            r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$",
            r"^\w[\w\s.,'-]{0,199}$",
            r"^\p{L}{1,50}$",
            r"^(?:a\cJb)*$",
        ] {
            assert!(add(pattern).expect(pattern) < 50_000, "{pattern}");
        }
    }

    #[test]
    fn patterns_over_a_limit_name_it() {
        assert_eq!(limit(add(r"(\w{1,100}){1,1000}")), "schema_pattern_states");
        assert_eq!(limit(add(&"a".repeat(2_000))), "schema_pattern_bytes");
        assert_eq!(limit(add(r"(\cA\p{L}{1000}){1000}")), "schema_pattern_states", "behind a control character too");
        let mut many = Patterns::default();
        let error = (0..100).find_map(|_| many.add("a").err());
        assert_eq!(limit(Err(error.expect("too many"))), "schema_patterns");
        let mut dear = Patterns::default();
        let error = (0..64).find_map(|_| dear.add(&r"\d".repeat(500)).err());
        assert_eq!(limit(Err(error.expect("too dear"))), "schema_pattern_steps");
    }

    #[test]
    fn what_is_no_pattern_says_so() {
        for pattern in ["(?=x)", "[", r"\p{Nonsense}", "a**{"] {
            let Err(SchemaError::Invalid { message, .. }) = add(pattern) else { panic!("{pattern}") };
            assert!(message.contains("pattern"), "{message}");
        }
    }
}
