//! Feeds a whole recording at once: first all frames are decoded, then they are fed to a new call through the same
//! session as a live one.
//!
//! Knows no HTTP, and does not wait for the call's results.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::attachment::{Attachment, NotAttached, Wanted};
use super::pump::Pump;
use super::watch::FRAMES;
use crate::call::bounds;
use crate::call::config::LimitsConfig;
use crate::protocol::ingest::End;
use crate::protocol::{self, ErrorCode, ErrorFrame};
use crate::session::command::Outlet;
use crate::session::offline::TimedFrame;
use crate::session::{SessionError, Sessions};
use crate::stt::{self, Dialect};
use crate::types::{CallId, Carry, EndScope, JsonMap, Seq, StreamId, SttEvent};

/// A recording whose frames were decoded.
pub struct BatchRecording {
    dialect: &'static dyn Dialect,
    /// The events of each frame, and the decoder's state after it.
    frames: Vec<(Arc<Carry>, Vec<SttEvent>)>,
    /// Parts of frames that could not be read: the frame's position, and the error. At most [`LOST_SHOWN`].
    lost: Vec<(usize, ErrorFrame)>,
    /// Set if none of the first frames was understood; the reason.
    not_understood: Option<String>,
}

/// Maximum number of unreadable parts of frames that are listed.
const LOST_SHOWN: usize = 20;

/// Why a recording is refused.
#[derive(Debug)]
pub enum BatchError {
    /// No session could be started for it.
    Session(SessionError),
    /// The call exists already.
    Taken,
}

impl BatchRecording {
    /// Decodes all frames.
    ///
    /// # Errors
    /// The position of the first frame that is unusable or exceeds one of `limits`, and why.
    pub fn read<'a>(
        dialect: &'static dyn Dialect,
        frames: impl IntoIterator<Item = &'a str>,
        limits: &LimitsConfig,
    ) -> Result<Self, (usize, ErrorFrame)> {
        let mut pump = Pump::new(dialect, &Arc::default());
        let (mut read, mut lost) = (Vec::new(), Vec::new());
        let (mut first, mut known) = (Vec::new(), false);
        for (position, frame) in frames.into_iter().enumerate() {
            let (mut events, error) = pump.feed(frame);
            known |= pump.fit.is_known();
            if !known && first.len() < FRAMES {
                first.push(frame);
            }
            match error {
                Some(mut error) if !pump.partly => {
                    if let Some(likelier) = stt::likelier(dialect, &first).filter(|_| !known) {
                        error.message = format!("{}; dialect {} understands it", error.message, likelier.name());
                    }
                    return Err((position, error));
                }
                Some(error) if lost.len() < LOST_SHOWN => lost.push((position, error)),
                Some(_) | None => {}
            }
            for event in &events {
                bounds::check(event, limits)
                    .map_err(|message| (position, ErrorFrame::new(ErrorCode::BadField, message)))?;
            }
            // An `end` in the recording would complete the call after its linger, and the frames after it would be
            // lost.
            events.retain(|event| !matches!(event, SttEvent::End { .. }));
            read.push((Arc::clone(&pump.carry), events));
        }
        // Completes the call after its last frame.
        let end = End { reason: Some("recording".into()), scope: Some(EndScope::Call), ..End::default() };
        let (events, _) = pump.feed(&protocol::text(&end));
        read.push((Arc::clone(&pump.carry), events));
        let bound = format!("{} frames", first.len());
        let not_understood = (!known && !first.is_empty()).then(|| stt::not_understood(dialect, &bound, &first));
        Ok(Self { dialect, frames: read, lost, not_understood })
    }

    /// Parts of frames that could not be read and were left out: the frame's position, and the error.
    pub fn lost(&self) -> &[(usize, ErrorFrame)] {
        &self.lost
    }

    /// The reason if none of the first frames was understood.
    pub fn not_understood(&self) -> Option<&str> {
        self.not_understood.as_deref()
    }

    /// Returns true if the recording contains speech.
    pub fn has_turns(&self) -> bool {
        self.frames.iter().flat_map(|(_, events)| events).any(|event| matches!(event, SttEvent::Final(_)))
    }

    /// The frames with these times, one time for each frame that was read, for a call that is not live. The call's end
    /// comes with the last frame.
    pub fn timed(self, times: impl IntoIterator<Item = u64>) -> VecDeque<TimedFrame> {
        let (mut times, mut at_ms) = (times.into_iter(), 0);
        let frames = self.frames.into_iter().map(|(carry, events)| {
            at_ms = times.next().unwrap_or(at_ms);
            TimedFrame { at_ms, carry, events }
        });
        frames.collect()
    }

    /// Feeds the recording to `call`, which must be new. The call completes by itself; its events come after the
    /// returned position. Once it has completed, the outlet holds the errors of all parts that the session refused.
    ///
    /// # Errors
    /// See [`BatchError`].
    ///
    /// # Cancel safety
    /// If this future is dropped, the call has a part of the recording, and completes once it is idle.
    pub async fn feed(
        self,
        sessions: &Sessions,
        call: &CallId,
        meta: &JsonMap,
        analyses: Option<&[String]>,
    ) -> Result<(Seq, Arc<Outlet>), BatchError> {
        let (stream, variants) = (StreamId::mint(), BTreeMap::new());
        let dialect = self.dialect;
        let wanted =
            Wanted { stream: &stream, dialect, offset_ms: None, meta, analyses, variants: &variants, asking: None };
        let mut attached = match Attachment::attach(sessions, call, wanted, None).await {
            Ok(attached) if !attached.is_over() => attached,
            Ok(_) | Err(NotAttached::Refused { .. }) => return Err(BatchError::Taken),
            Err(NotAttached::Session(error)) => return Err(BatchError::Session(error)),
        };
        let (after, outlet) = (attached.welcome.seq, Arc::clone(&attached.outlet));
        let lost = || BatchError::Session(SessionError::Failed(call.clone()));
        for (count, (carry, events)) in (1..).zip(self.frames) {
            let frames = attached.frames(count, carry, events);
            if !attached.send(frames).await {
                return Err(lost());
            }
        }
        if attached.detach().await { Ok((after, outlet)) } else { Err(lost()) }
    }
}
