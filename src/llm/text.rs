//! A text in segments: long prompt prefixes are shared between requests and never copied.
//!
//! Does not know the content, nor how it is escaped.

use std::fmt;
use std::sync::Arc;

/// A text made of shared segments, in order.
#[derive(Clone, Default)]
pub struct Text {
    segments: Vec<Arc<str>>,
}

impl Text {
    /// Appends a segment.
    pub fn push(&mut self, segment: impl Into<Arc<str>>) {
        let segment = segment.into();
        if !segment.is_empty() {
            self.segments.push(segment);
        }
    }

    /// Appends all segments of another text, shared.
    pub fn append(&mut self, other: &Self) {
        self.segments.extend(other.segments.iter().map(Arc::clone));
    }

    /// The segments, in order.
    pub fn segments(&self) -> &[Arc<str>] {
        &self.segments
    }

    /// Length in bytes of UTF-8.
    pub fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.len()).sum()
    }

    /// Returns true if there is no text.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut rope = Self::default();
        rope.push(text);
        rope
    }
}

impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        let mut rope = Self::default();
        rope.push(text);
        rope
    }
}

impl From<Vec<Arc<str>>> for Text {
    fn from(segments: Vec<Arc<str>>) -> Self {
        Self { segments: segments.into_iter().filter(|segment| !segment.is_empty()).collect() }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.segments.iter().try_for_each(|segment| formatter.write_str(segment))
    }
}

/// Shows only the length: the content of a prompt must not be logged.
impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Text({} bytes)", self.len())
    }
}

/// Compares the content, however it is segmented.
impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self
                .segments
                .iter()
                .flat_map(|segment| segment.bytes())
                .eq(other.segments.iter().flat_map(|segment| segment.bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_and_display_ignore_the_cuts() {
        let mut rope = Text::from("a");
        rope.push("");
        rope.push("bc");
        assert_eq!(rope, Text::from("abc"));
        assert_ne!(rope, Text::from("abd"));
        assert_eq!(rope.to_string(), "abc");
        assert_eq!(rope.segments().len(), 2);
        assert_eq!(format!("{rope:?}"), "Text(3 bytes)");
    }
}
