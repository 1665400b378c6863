//! Identifiers as sent on the wire: `[A-Za-z0-9_~:-][A-Za-z0-9_.~:-]{0,127}`.
//!
//! The first character is never a dot, so that an id is always a safe file name.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest identifier, in bytes.
pub const MAX_ID_BYTES: usize = 128;

/// The rule of [`check`] as a regular expression.
#[cfg(test)]
const PATTERN: &str = "^[A-Za-z0-9_~:-][A-Za-z0-9_.~:-]{0,127}$";

/// Why a string is not a valid identifier. The message names the rule and repeats at most the offending character.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The string is empty.
    #[error("expected 1 to 128 characters of A-Z a-z 0-9 _ . ~ : - (no leading dot), found an empty string")]
    Empty,
    /// The string is longer than [`MAX_ID_BYTES`]; its length in characters.
    #[error("expected at most 128 characters of A-Z a-z 0-9 _ . ~ : -, found {0}")]
    TooLong(usize),
    /// A character outside the set, or a leading dot; the character and its position in characters, from 0.
    #[error("expected characters of A-Z a-z 0-9 _ . ~ : - (no leading dot), found {0:?} at position {1}")]
    Character(char, usize),
}

/// Checks `text` against the identifier rule.
///
/// # Errors
/// The first rule that the text breaks.
pub fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong(text.chars().count()));
    }
    for (position, character) in text.chars().enumerate() {
        let allowed = character.is_ascii_alphanumeric()
            || matches!(character, '_' | '~' | ':' | '-')
            || (character == '.' && position > 0);
        if !allowed {
            return Err(IdError::Character(character, position));
        }
    }
    Ok(())
}

/// Replaces every character that is not allowed by `_` and cuts at the limit. Never empty.
pub fn sanitize(text: &str) -> String {
    let mut id: String = text
        .chars()
        .take(MAX_ID_BYTES)
        .enumerate()
        .map(|(position, character)| {
            let allowed = character.is_ascii_alphanumeric()
                || matches!(character, '_' | '~' | ':' | '-')
                || (character == '.' && position > 0);
            if allowed { character } else { '_' }
        })
        .collect();
    if id.is_empty() {
        id.push('_');
    }
    id
}

/// A fresh, unguessable suffix of 20 base-32 characters (100 bits).
pub fn random_suffix() -> String {
    suffix_of(rand::random())
}

/// The lower 100 of `bits` as 20 base-32 characters.
pub fn suffix_of(bits: u128) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    (0..20).map(|position| char::from(ALPHABET[((bits >> (position * 5)) & 31) as usize])).collect()
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Validates `text`.
            ///
            /// # Errors
            /// The rule of [`check`] that the text breaks.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// A fresh random id.
            pub fn mint() -> Self {
                Self(Arc::from(format!(concat!($prefix, "{}"), random_suffix())))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        #[cfg(test)]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": PATTERN })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

identifier!(
    /// Identifies one conversation: the unit of order, state and cost.
    CallId,
    "c_"
);
identifier!(
    /// Identifies one STT session inside a call.
    StreamId,
    "s_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_documented_set_and_nothing_else() {
        for good in ["a", "c_42", "A~b:c-d.e", "_", &"x".repeat(128)] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", ".hidden", "a/b", "a b", "é", "..", &"x".repeat(129)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sanitized_and_minted_ids_are_valid() {
        for text in ["", ".x", "call one/two", "é".repeat(200).as_str()] {
            assert!(check(&sanitize(text)).is_ok(), "{text}");
        }
        assert!(check(CallId::mint().as_str()).is_ok());
        assert_ne!(CallId::mint(), CallId::mint());
    }
}
