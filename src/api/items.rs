//! Reads a JSON list item by item, without building the list.

use std::fmt;

use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Passes each item of `list` with its position to `take`, until `take` fails.
///
/// # Errors
/// The error of `take`; `None` if `list` is not a list.
pub(super) fn each<'a, E>(
    list: &'a RawValue,
    take: impl FnMut(usize, &'a RawValue) -> Result<(), E>,
) -> Result<(), Option<E>> {
    let mut refused = None;
    let read = serde_json::Deserializer::from_str(list.get()).deserialize_seq(Each { take, refused: &mut refused });
    read.map_err(|_| refused)
}

struct Each<'r, F, E> {
    take: F,
    refused: &'r mut Option<E>,
}

impl<'de, F, E> Visitor<'de> for Each<'_, F, E>
where
    F: FnMut(usize, &'de RawValue) -> Result<(), E>,
{
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let mut position = 0;
        while let Some(item) = items.next_element::<&'de RawValue>()? {
            if let Err(error) = (self.take)(position, item) {
                *self.refused = Some(error);
                return Err(A::Error::custom("refused"));
            }
            position += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_passes_items_in_order_until_one_is_refused() {
        let list: &RawValue = serde_json::from_str(r#"[{"a":1}, 2 ,"three",[4]]"#).expect("JSON");
        let mut seen = Vec::new();
        let taken = each::<()>(list, |position, item| {
            seen.push((position, item.get()));
            Ok(())
        });
        assert_eq!((taken, seen.len(), seen[2]), (Ok(()), 4, (2, r#""three""#)));
        let refused = each(list, |position, _| if position < 2 { Ok(()) } else { Err(position) });
        assert_eq!(refused, Err(Some(2)));
    }

    #[test]
    fn each_of_what_is_not_a_list_fails() {
        for other in ["{}", "5", "\"x\"", "null"] {
            let other: &RawValue = serde_json::from_str(other).expect("JSON");
            assert_eq!(each::<()>(other, |_, _| Ok(())), Err(None), "{other}");
        }
    }
}
