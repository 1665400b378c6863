//! Assigns each piece of a tool call to its call, however the vendor uses indexes and ids.
//!
//! Our calls are numbered from 0 without gaps, each has an id that no other call of the answer has, and its name and id
//! are sent once. The vendor's indexes and ids are only hints: a vendor may give every call index 0, skip numbers,
//! leave out indexes and ids, change the id with every piece, or repeat the whole call. Knows no vendor's format.

mod end;
mod history;

use self::end::End;
pub(super) use self::history::{IdRule, stray_result, unique_ids};
use super::{Piece, StreamError, VendorError};
use crate::types::id::random_suffix;

/// Maximum number of tool calls in one answer. Bounds the memory that a vendor can make us allocate.
const MAX_CALLS: usize = 1024;

/// A piece of a tool call as a vendor sends it.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// The vendor's number of the call.
    pub(super) index: Option<u64>,
    /// The vendor's id of the call; `Some("")` is an id that is present but empty.
    pub(super) id: Option<String>,
    /// The function's name, or a further part of it.
    pub(super) name: Option<String>,
    /// A further part of its arguments.
    pub(super) arguments: String,
}

/// The tool calls of all choices of one answer.
#[derive(Debug, Default)]
pub(super) struct Calls {
    known: Vec<Known>,
}

#[derive(Debug, Default)]
struct Known {
    choice: u32,
    /// Our number of the call within its choice.
    index: u32,
    /// The vendor's number of the call.
    vendor_index: Option<u64>,
    /// The vendor's newest id; empty if it gives none.
    vendor_id: String,
    /// Set if the vendor gives this call a new id with each piece, so that its ids identify nothing.
    unsteady: bool,
    /// The id that is sent to the client.
    id: String,
    /// Empty until it arrives; no piece of the call is sent before.
    name: String,
    arguments: String,
    end: End,
}

/// How a part relates to the call that it may belong to.
enum Relation {
    /// The piece continues the call.
    More,
    /// The piece repeats something that the call already has.
    Again,
    /// The piece belongs to another call.
    Other,
}

impl Calls {
    /// Takes a part of a call and appends the piece that it makes, if any. Returns true if a client that trusts the
    /// vendor's own chunk would get the same result.
    ///
    /// # Errors
    /// The answer has more than [`MAX_CALLS`] calls.
    pub(super) fn part(&mut self, choice: u32, part: Part, out: &mut Vec<Piece>) -> Result<bool, StreamError> {
        let Some(position) = self.position(choice, &part) else { return Ok(false) };
        let Part { index, id, name, arguments } = part;
        let (position, begins) = match position {
            Position::Of(position) => (position, false),
            Position::New => (self.add(choice, index)?, true),
        };
        let in_its_place = index == Some(u64::from(self.known[position].index));
        let mut trusted = in_its_place && (begins || (id.is_none() && name.is_none()));
        let repeats = name.as_ref().is_some_and(|name| *name == self.known[position].name);
        if let Some(id) = id.filter(|id| !id.is_empty()) {
            let call = &mut self.known[position];
            call.unsteady |= !call.vendor_id.is_empty() && call.vendor_id != id;
            call.vendor_id = id;
        }
        let call = &mut self.known[position];
        let announced = !call.name.is_empty();
        let name = call.more_of_name(name.unwrap_or_default());
        let all = arguments.trim_end().len();
        let arguments = call.more_of_arguments(arguments, repeats);
        trusted &= arguments.len() >= all;
        if announced {
            if !name.is_empty() || !arguments.is_empty() {
                let (index, name) = (call.index, Some(name).filter(|name| !name.is_empty()));
                out.push(Piece::ToolCall { choice, index, id: None, name, arguments });
            }
            return Ok(trusted);
        }
        if name.is_empty() {
            // A call is not sent before its function is known.
            return Ok(false);
        }
        let (index, arguments) = (call.index, call.arguments.clone());
        let id = self.free_id(position);
        trusted &= begins && self.known[position].vendor_id == id;
        self.known[position].id.clone_from(&id);
        out.push(Piece::ToolCall { choice, index, id: Some(id), name: Some(name), arguments });
        Ok(trusted)
    }

    /// Takes a call whose beginning the vendor marks. Returns its index, which [`Calls::more`] takes for further
    /// arguments.
    ///
    /// # Errors
    /// The answer has more than [`MAX_CALLS`] calls.
    pub(super) fn begin(
        &mut self,
        choice: u32,
        id: Option<String>,
        name: Option<String>,
        arguments: String,
        out: &mut Vec<Piece>,
    ) -> Result<u32, StreamError> {
        let position = self.add(choice, None)?;
        let call = &mut self.known[position];
        call.vendor_id = id.unwrap_or_default();
        let index = call.index;
        call.name = name.unwrap_or_default();
        call.end.read(&arguments);
        call.arguments = arguments;
        if !call.name.is_empty() {
            let (name, arguments) = (call.name.clone(), call.arguments.clone());
            let id = self.free_id(position);
            self.known[position].id.clone_from(&id);
            out.push(Piece::ToolCall { choice, index, id: Some(id), name: Some(name), arguments });
        }
        Ok(index)
    }

    /// Adds arguments to a call that was begun.
    pub(super) fn more(&mut self, choice: u32, index: u32, arguments: String, out: &mut Vec<Piece>) {
        let call = self.known.iter_mut().find(|call| call.choice == choice && call.index == index);
        let Some(call) = call.filter(|_| !arguments.is_empty()) else { return };
        call.end.read(&arguments);
        call.arguments.push_str(&arguments);
        if !call.name.is_empty() {
            out.push(Piece::ToolCall { choice, index, id: None, name: None, arguments });
        }
    }

    /// Returns true if a choice has tool calls.
    pub(super) fn any(&self, choice: u32) -> bool {
        self.known.iter().any(|call| call.choice == choice)
    }

    /// Checks the calls of a choice that has ended.
    ///
    /// # Errors
    /// A call has no function name: without it the rest of the answer is useless.
    pub(super) fn check(&self, choice: u32) -> Result<(), StreamError> {
        let nameless = |call: &&Known| call.choice == choice && call.name.is_empty();
        match self.known.iter().find(nameless) {
            None => Ok(()),
            Some(call) => {
                let message = format!("tool call {} of the answer has no function name", call.index);
                Err(StreamError::Vendor(VendorError::new(502, Some("malformed_tool_call".to_owned()), message)))
            }
        }
    }

    /// Like [`Calls::check`], but only if the last of `pieces` ends the choice.
    ///
    /// # Errors
    /// As [`Calls::check`].
    pub(super) fn check_end(&self, choice: u32, pieces: &[Piece]) -> Result<(), StreamError> {
        match pieces.last() {
            Some(Piece::Finish { choice: of, .. } | Piece::UnknownFinish { choice: of, .. }) if *of == choice => {
                self.check(choice)
            }
            _ => Ok(()),
        }
    }

    fn add(&mut self, choice: u32, vendor_index: Option<u64>) -> Result<usize, StreamError> {
        if self.known.len() >= MAX_CALLS {
            let message = format!("the answer has more than {MAX_CALLS} tool calls (answer_tool_calls)");
            return Err(StreamError::Vendor(VendorError::new(502, Some("malformed_tool_call".to_owned()), message)));
        }
        let before = self.known.iter().filter(|call| call.choice == choice).count();
        let index = u32::try_from(before).unwrap_or(u32::MAX);
        self.known.push(Known { choice, index, vendor_index, ..Known::default() });
        Ok(self.known.len() - 1)
    }

    /// The vendor's id, or a fresh one if the vendor gave none or another call of the answer has it. No earlier answer
    /// of the conversation can contain a fresh id.
    fn free_id(&self, position: usize) -> String {
        let wanted = &self.known[position].vendor_id;
        let taken = self.known.iter().any(|call| call.id == *wanted);
        if wanted.is_empty() || taken { fresh_id() } else { wanted.clone() }
    }

    /// Where a part belongs; `None` if it adds nothing.
    fn position(&self, choice: u32, part: &Part) -> Option<Position> {
        let given = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(str::to_owned);
        let (id, name) = (given(&part.id), given(&part.name));
        let of_choice = || self.known.iter().enumerate().rev().filter(|(_, call)| call.choice == choice);
        let by_id = || of_choice().find(|(_, call)| id.as_ref().is_some_and(|id| call.vendor_id == *id));
        let last = of_choice().next();
        let candidate = match part.index {
            Some(index) => of_choice().find(|(_, call)| call.vendor_index == Some(index)).or_else(|| match &name {
                // A new index without a name: the vendor counts pieces.
                None => by_id().or(last.filter(|_| id.is_none())),
                // Even with a name it may be a further part of the arguments of a call with that name and id.
                Some(name) => {
                    by_id().filter(|(_, call)| call.name == *name && !call.arguments.is_empty() && !call.end.reached())
                }
            }),
            None => by_id().or(last),
        };
        let says_nothing = name.is_none() && part.arguments.trim().is_empty();
        match candidate {
            None if says_nothing && id.is_none() => None,
            None => Some(Position::New),
            Some((position, call)) => {
                match call.relation(part.index, id.as_deref(), name.as_deref(), &part.arguments) {
                    Relation::More => Some(Position::Of(position)),
                    Relation::Again => None,
                    Relation::Other => Some(Position::New),
                }
            }
        }
    }
}

enum Position {
    Of(usize),
    New,
}

impl Known {
    /// How a part relates to this call, which it may belong to.
    fn relation(&self, index: Option<u64>, id: Option<&str>, name: Option<&str>, arguments: &str) -> Relation {
        let same_id = id.is_some_and(|id| id == self.vendor_id);
        let other_id = id.is_some() && !same_id && !self.vendor_id.is_empty() && !self.unsteady;
        let other_index = index.is_some() && self.vendor_index.is_some() && index != self.vendor_index;
        let whole = self.end.reached();
        let Some(name) = name.filter(|_| !self.name.is_empty()) else {
            // A part without a name begins a call only if this call is complete and the part has another id or index.
            let other = whole && (other_id || other_index) && !arguments.trim().is_empty();
            return if other { Relation::Other } else { Relation::More };
        };
        if name == self.name {
            return match whole {
                false => Relation::More,
                true if other_id => Relation::Other,
                true if arguments.trim().is_empty() || arguments == self.arguments => Relation::Again,
                true if arguments.trim_start().starts_with('{') => Relation::Other,
                true => Relation::More,
            };
        }
        // Some vendors send a name in pieces (with an index), or all of the name so far in each piece (with the same
        // id), always before any argument.
        let in_pieces = self.arguments.is_empty()
            && !other_id
            && (same_id && name.starts_with(&self.name) || index.is_some() && arguments.is_empty());
        if in_pieces { Relation::More } else { Relation::Other }
    }

    /// Adds a part of the name; returns what is new in it.
    fn more_of_name(&mut self, name: String) -> String {
        if !self.arguments.is_empty() && !self.name.is_empty() || name == self.name {
            return String::new();
        }
        let new = name.strip_prefix(self.name.as_str()).map(str::to_owned).unwrap_or(name);
        self.name.push_str(&new);
        new
    }

    /// Adds a part of the arguments, up to the end of the JSON object; returns what is new in it. `repeats`: the name
    /// was repeated.
    fn more_of_arguments(&mut self, mut new: String, repeats: bool) -> String {
        // Some vendors repeat the name in each chunk, with all arguments so far and then the new ones.
        if repeats && self.arguments.trim_start().starts_with('{') && new.starts_with(&self.arguments) {
            new.drain(..self.arguments.len());
        }
        new.truncate(self.end.read(&new));
        self.arguments.push_str(&new);
        new
    }
}

/// An id for a call that has no usable id of its vendor.
fn fresh_id() -> String {
    format!("call_{}", random_suffix())
}

#[cfg(test)]
mod tests;
