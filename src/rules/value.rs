//! Conditions on the value of an insight.
//!
//! Knows no analysis: the value is JSON, and a JSON pointer names a place in it.

use serde_json::Value;

/// The test of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// A number below this one.
    Below(f64),
    /// A number above this one.
    Above(f64),
    /// The value is this string, number or boolean.
    Equals(Value),
}

/// A place in the insights of an analysis, and its test.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub analysis: String,
    /// A JSON pointer into the value.
    pub at: String,
    pub test: Test,
    /// The test must pass for this long without interruption, ms.
    pub for_ms: u64,
}

impl Reading {
    /// Returns true if the value passes the test; false if the pointer leads to nothing.
    pub fn holds(&self, value: &Value) -> bool {
        let Some(found) = value.pointer(&self.at) else { return false };
        match &self.test {
            Test::Below(limit) => found.as_f64().is_some_and(|number| number < *limit),
            Test::Above(limit) => found.as_f64().is_some_and(|number| number > *limit),
            Test::Equals(wanted) if wanted.is_number() => found.as_f64().is_some() && found.as_f64() == wanted.as_f64(),
            Test::Equals(wanted) => found == wanted,
        }
    }
}

/// Returns true if the text is a JSON pointer (RFC 6901).
pub(super) fn is_pointer(text: &str) -> bool {
    let escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    (text.is_empty() || text.starts_with('/')) && escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(at: &str, test: Test) -> bool {
        let value = json!({"overall": {"score": -0.5, "label": "negative"}, "turns": 4, "open": true, "a/b": 1});
        Reading { analysis: "sentiment".into(), at: at.into(), test, for_ms: 0 }.holds(&value)
    }

    #[test]
    fn value_is_compared_where_the_pointer_leads() {
        assert!(holds("/overall/score", Test::Below(-0.4)));
        assert!(!holds("/overall/score", Test::Below(-0.5)), "below, not at");
        assert!(holds("/turns", Test::Above(3.0)));
        assert!(holds("/overall/label", Test::Equals(json!("negative"))));
        assert!(!holds("/overall/label", Test::Equals(json!("Negative"))));
        assert!(holds("/open", Test::Equals(json!(true))));
        assert!(holds("/turns", Test::Equals(json!(4.0))), "an integer is a number");
        assert!(holds("/a~1b", Test::Equals(json!(1))));
    }

    #[test]
    fn nothing_there_or_of_another_kind_does_not_hold() {
        assert!(!holds("/overall/nothing", Test::Below(9.0)));
        assert!(!holds("/overall/label", Test::Above(-9.0)));
        assert!(!holds("/overall", Test::Equals(json!("negative"))));
        assert!(!holds("/overall/label", Test::Equals(json!(1))));
    }

    #[test]
    fn pointers_are_distinguished_from_other_texts() {
        for (text, expected) in
            [("", true), ("/a/0", true), ("/a~0~1", true), ("a", false), ("/a~2", false), ("/a~", false)]
        {
            assert_eq!(is_pointer(text), expected, "{text}");
        }
    }
}
