//! A recording prepared for playing as a session.

use std::time::Duration;

use serde::Deserialize;

use crate::base::ws::Utf8Bytes;
use crate::recording::Recording;

/// Kind of a frame: only what playing it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Begin,
    Partial(i64),
    Final(i64),
    Termination,
    Other,
}

#[derive(Debug)]
pub(super) struct Step {
    pub(super) at: Duration,
    pub(super) kind: Kind,
    pub(super) text: Utf8Bytes,
}

/// A session to play.
#[derive(Debug)]
pub struct Script {
    /// Name by which a client can request it.
    pub name: String,
    pub(super) steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: Option<String>,
    turn_order: Option<i64>,
    end_of_turn: Option<bool>,
}

impl Script {
    ///
    /// # Errors
    /// The recording has another dialect.
    pub fn new(name: impl Into<String>, recording: &Recording) -> Result<Self, String> {
        if recording.header.dialect != "assemblyai" {
            return Err(format!(
                "its dialect is {}; only assemblyai recordings can be served as an STT vendor",
                recording.header.dialect
            ));
        }
        let steps = recording
            .frames
            .iter()
            .map(|frame| Step { at: frame.at, kind: kind(&frame.message), text: Utf8Bytes::from(&*frame.message) })
            .collect();
        Ok(Self { name: name.into(), steps })
    }
}

fn kind(message: &str) -> Kind {
    let Ok(head) = serde_json::from_str::<Head>(message) else { return Kind::Other };
    match (head.kind.as_deref(), head.turn_order, head.end_of_turn) {
        (Some("Begin"), ..) => Kind::Begin,
        (Some("Termination"), ..) => Kind::Termination,
        (Some("Turn"), Some(turn), Some(true)) => Kind::Final(turn),
        (Some("Turn"), Some(turn), _) => Kind::Partial(turn),
        _ => Kind::Other,
    }
}
