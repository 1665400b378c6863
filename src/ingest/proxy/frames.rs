//! Reads the vendor's frames with the decoder of its dialect, so that the relay, the tap and the answers see the same
//! turns as the pipeline, whatever spelling a frame uses.

use crate::stt;
use crate::types::{SttEvent, TurnKey};

/// The events of a frame; none if the frame cannot be read.
pub(super) fn events(frame: &str) -> Vec<SttEvent> {
    let mut events = Vec::new();
    if let Some(dialect) = stt::dialect("assemblyai") {
        let _ = dialect.open().decode(frame, &mut events);
    }
    events
}

/// The vendor's number of a turn.
pub(super) fn order(key: &TurnKey) -> Option<i64> {
    match key {
        TurnKey::Vendor(id) => id.parse().ok(),
        _ => None,
    }
}
