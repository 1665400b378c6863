//! What a frame says beside a part of it that cannot be read. A field that is wrong is left out; where it was needed, the
//! smallest element of a list that holds it is left out with it; where no list holds it, the frame is refused. Each part
//! that is left out is an error that names it.
//!
//! Knows no dialect: what is needed is said by the types that a dialect reads its frames into. Runs only for frames that
//! could not be read as they came.

use serde_json::Value;

use super::explain::{Fault, Step};
use crate::stt::DecodeError;

/// Repairs of one frame, at most, if it is small. Then whole lists are left out: a vendor that spells a field in a way that
/// nobody can read does so in each of a thousand words.
const MAX_REPAIRS: usize = 64;
/// Bytes that are read again for one frame, in all, at most. A frame of 1 MiB has four repairs.
const MAX_REREAD_BYTES: usize = 4 << 20;
/// Lists that are left out, at most, after the repairs.
const MAX_LISTS: usize = 4;

/// Reads `frame`, which `error` was found in, again without the parts that cannot be read. `read` is the decoder; where it
/// fails it must have done nothing. Gives what was left out, in the order in which it was found.
///
/// # Errors
/// What was needed could not be read, and no list holds it.
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

/// The parts that were left out, and their places in the frame.
#[derive(Default)]
struct Lost(Vec<(Vec<Step>, DecodeError)>);

impl Lost {
    /// Why the frame is refused in the end: the first thing that was wrong with it.
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

/// Leaves out what `fault` names. An error where that cannot be done.
fn repair(value: &mut Value, fault: Fault, error: DecodeError, lost: &mut Lost) -> Result<(), DecodeError> {
    match fault {
        Fault::Wrong(path) if remove(value, &path) => {
            lost.0.push((path, error));
            Ok(())
        }
        // A value that is needed, or one that was left out already.
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
        // Given twice, the last counts, as it does to every parser of JSON; of two spellings of one name, the first that
        // is not null.
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

/// Takes the field out of its object, or puts null in the element's place: those behind it keep their places. `false` where
/// there is nothing to take.
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

/// `start_time` is `startTime`, and `StartTime`.
fn same_name(one: &str, other: &str) -> bool {
    let letters = |name: &str| {
        name.chars().filter(|letter| *letter != '_').map(|letter| letter.to_ascii_lowercase()).collect::<String>()
    };
    one == other || letters(one) == letters(other)
}
