//! Decodes the rest of a frame in which a part cannot be read. A wrong field is dropped. If it is required, the
//! smallest list element that contains it is dropped; if no list contains it, the frame is refused. Each dropped part
//! yields an error that names it.
//!
//! Knows no dialect: the types that a dialect reads its frames into define which fields are required. Runs only for
//! frames that could not be read as they are.

use serde_json::Value;

use super::explain::{Fault, Step};
use crate::stt::DecodeError;

/// Maximum number of repairs of a small frame. After them, whole lists are dropped: if a vendor spells a field in an
/// unreadable way, it does so in each of a thousand words.
const MAX_REPAIRS: usize = 64;
/// Limits the repairs of a large frame: they parse about this many bytes in total. A frame of 1 MiB has four repairs.
const MAX_REREAD_BYTES: usize = 4 << 20;
/// Maximum number of lists that are dropped after the repairs.
const MAX_LISTS: usize = 4;

/// Reads `frame` again without the parts that cannot be read. `error` is the first fault that was found in it. `read`
/// is the decoder; if it fails, it must have changed nothing. Returns one error per dropped part, in the order in which
/// they were found.
///
/// # Errors
/// A required part cannot be read and no list contains it, or the frame has more faults than the limits allow.
pub(in crate::stt) fn salvage(
    frame: &str,
    error: DecodeError,
    mut read: impl FnMut(&str) -> Result<(), DecodeError>,
) -> Result<Vec<DecodeError>, DecodeError> {
    if error.fault.is_none() {
        return Err(error);
    }
    let Ok(mut value) = serde_json::from_str::<Value>(frame) else { return Err(error) };
    let mut lost = Lost::default();
    let repairs = (MAX_REREAD_BYTES / frame.len().max(1)).clamp(1, MAX_REPAIRS);
    let mut error = error;
    for count in 0..repairs + MAX_LISTS {
        let Some(mut fault) = error.fault.take() else { return Err(lost.cause(error)) };
        if count >= repairs && !fault.widen_to_list() {
            return Err(lost.cause(error));
        }
        if let Err(error) = repair(&mut value, *fault, error, &mut lost) {
            return Err(lost.cause(error));
        }
        match read(&value.to_string()) {
            Ok(()) => return Ok(lost.0.into_iter().map(|(_, error)| error).collect()),
            Err(next) => error = next,
        }
    }
    Err(lost.cause(error))
}

/// The parts that were dropped, with their paths in the frame.
#[derive(Default)]
struct Lost(Vec<(Vec<Step>, DecodeError)>);

impl Lost {
    /// The error with which the frame is refused: its first fault.
    fn cause(self, error: DecodeError) -> DecodeError {
        self.0.into_iter().next().map_or(error, |(_, first)| first)
    }

    fn knows(&self, path: &[Step]) -> bool {
        let alike = |one: &Step, other: &Step| match (one, other) {
            (Step::Key(one), Step::Key(other)) => same_name(one, other),
            (one, other) => one == other,
        };
        self.0
            .iter()
            .any(|(known, _)| known.len() == path.len() && known.iter().zip(path).all(|(one, other)| alike(one, other)))
    }
}

/// Drops the part that `fault` names. Fails with `error` if that is not possible.
fn repair(value: &mut Value, fault: Fault, error: DecodeError, lost: &mut Lost) -> Result<(), DecodeError> {
    match fault {
        Fault::Wrong(path) if remove(value, &path) => {
            lost.0.push((path, error));
            Ok(())
        }
        // A required value, or one that was already dropped.
        Fault::Wrong(path) | Fault::Missing(path) => {
            let mut elements = (0..path.len()).rev().filter(|at| matches!(path[*at], Step::Index(_)));
            if !elements.any(|last| remove(value, &path[..=last])) {
                return Err(error);
            }
            if !lost.knows(&path) {
                lost.0.push((path, error));
            }
            Ok(())
        }
        // If a name is given twice, the last value counts, as in every JSON parser. If one name has two spellings, the
        // first value that is not null counts.
        Fault::Duplicate(path) => {
            if let Some((Step::Key(name), parent)) = path.split_last()
                && let Some(Value::Object(fields)) = find(value, parent)
            {
                let names: Vec<String> = fields.keys().filter(|key| same_name(key, name)).cloned().collect();
                let kept = names.iter().find(|name| fields.get(*name).is_some_and(|field| !field.is_null())).cloned();
                fields.retain(|key, _| !same_name(key, name) || kept.as_ref() == Some(key));
            }
            Ok(())
        }
    }
}

/// Removes a field from its object, or replaces a list element by null, so that the elements after it keep their
/// positions. Returns false if there is nothing to remove.
fn remove(value: &mut Value, path: &[Step]) -> bool {
    let Some((last, parent)) = path.split_last() else { return false };
    match (find(value, parent), last) {
        (Some(Value::Object(fields)), Step::Key(name)) => fields.shift_remove(name).is_some(),
        (Some(Value::Array(items)), Step::Index(index)) => {
            items.get_mut(*index).is_some_and(|item| !std::mem::take(item).is_null())
        }
        _ => false,
    }
}

fn find<'v>(value: &'v mut Value, path: &[Step]) -> Option<&'v mut Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Key(name) => value.get_mut(name),
        Step::Index(index) => value.get_mut(index),
    })
}

/// Returns true for spellings of one name, such as `start_time`, `startTime` and `StartTime`.
fn same_name(one: &str, other: &str) -> bool {
    let letters = |name: &str| {
        name.chars().filter(|letter| *letter != '_').map(|letter| letter.to_ascii_lowercase()).collect::<String>()
    };
    one == other || letters(one) == letters(other)
}
