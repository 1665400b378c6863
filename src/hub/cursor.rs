//! The cursor of a subscription to all calls, as it is sent to clients. For clients it is opaque; its form is
//! `GENERATION.ORDER`.

use std::fmt;
use std::str::FromStr;

/// A position in the events of all calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The history that `order` belongs to (`Store::generation`).
    pub generation: u64,
    /// Every event up to this `order` was delivered. `None`: snapshots are still to come, so a client cannot resume
    /// from here.
    pub order: Option<u64>,
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.order {
            Some(order) => write!(formatter, "{:x}.{order:x}", self.generation),
            None => write!(formatter, "{:x}.-", self.generation),
        }
    }
}

/// The string is not a cursor of this daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a cursor from this daemon")]
pub struct BadCursor;

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (generation, order) = text.split_once('.').ok_or(BadCursor)?;
        let number = |text: &str| u64::from_str_radix(text, 16).map_err(|_| BadCursor);
        let order = if order == "-" { None } else { Some(number(order)?) };
        Ok(Self { generation: number(generation)?, order })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_reads_back_and_other_texts_are_refused() {
        for order in [None, Some(0), Some(u64::MAX)] {
            let cursor = Cursor { generation: 0xbeef, order };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", ".", "1", "1.", ".1", "x.1", "1.1.1", "1 .1"] {
            assert_eq!(bad.parse::<Cursor>(), Err(BadCursor), "{bad}");
        }
    }
}
