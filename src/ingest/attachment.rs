//! A stream that is attached to its call's session: attaches it, sends its frames to the session, and detaches it.
//! Producers' sockets, the proxy's tap, sources and whole recordings all use it.
//!
//! Knows the decoder of its stream; does not know where its frames come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::pump::Pump;
use crate::base::inflight::Lease;
use crate::base::queue::{SendError, Sender};
use crate::base::ws::{ServerSocket, Utf8Bytes};
use crate::protocol::{self, Close, CloseCode, ErrorCode, ErrorFrame, GapCause};
use crate::session::command::{Asking, Attach, Attached, Command, Detach, Frames, Gap, Outlet, Welcome};
use crate::session::{SessionError, Sessions};
use crate::stt::{self, Dialect, Fit};
use crate::types::{CallId, Carry, JsonMap, StreamId, SttEvent};

/// Maximum number of attempts to attach if the call's session ends each time; after them, the call is given up.
const TRIES: u32 = 5;

/// What a stream requests from its call.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) stream: &'a StreamId,
    pub(super) dialect: &'static dyn Dialect,
    pub(super) offset_ms: Option<u64>,
    pub(super) meta: &'a JsonMap,
    /// Analyses of the call; `None` for the configured default.
    pub(super) analyses: Option<&'a [String]>,
    /// Chosen variants, by route.
    pub(super) variants: &'a BTreeMap<String, String>,
    /// The question that the producer asks about its turns.
    pub(super) asking: Option<&'a Asking>,
}

/// Why a stream could not be attached.
#[derive(Debug)]
pub(super) enum NotAttached {
    /// The session could not be started.
    Session(SessionError),
    /// The session refuses the stream.
    Refused { code: ErrorCode, message: String, close: CloseCode },
}

impl NotAttached {
    /// How the producer's connection is closed because of it.
    pub(super) fn close(&self) -> Close {
        match self {
            Self::Session(error) => {
                let (code, temporary, close) = match error {
                    SessionError::Limit { .. } => (ErrorCode::RateLimited, true, CloseCode::RateLimited),
                    SessionError::Failed(_) => (ErrorCode::CallFailed, false, CloseCode::Internal),
                    SessionError::Journal(_) => (ErrorCode::JournalUnavailable, true, CloseCode::Internal),
                    SessionError::Stopping => (ErrorCode::Stopping, true, CloseCode::GoingAway),
                    SessionError::Elsewhere { .. } => (ErrorCode::SessionRestarted, true, CloseCode::GoingAway),
                    SessionError::UnknownCall(_) => (ErrorCode::UnknownCall, false, CloseCode::Internal),
                };
                let error = ErrorFrame { temporary, ..ErrorFrame::new(code, error.to_string()).fatal() };
                Close::after(error, close, "refused")
            }
            Self::Refused { code, message, close } => {
                Close::after(ErrorFrame::new(*code, message.clone()).fatal(), *close, code.as_str())
            }
        }
    }
}

/// An attached stream.
pub(super) struct Attachment {
    stream: StreamId,
    commands: Sender<Command>,
    /// A command that did not fit into the session's queue.
    waiting: Option<Command>,
    pump: Pump,
    /// Messages from the session for the producer.
    pub(super) outlet: Arc<Outlet>,
    pub(super) welcome: Welcome,
}

impl Attachment {
    /// Attaches a stream to `call`, which is created if it does not exist. While this waits, errors are sent to
    /// `socket`, so that a producer learns why it waits, for example because the journal accepts no writes.
    ///
    /// # Errors
    /// See [`NotAttached`].
    ///
    /// # Cancel safety
    /// If this future is dropped, the stream may have been attached.
    pub(super) async fn attach(
        sessions: &Sessions,
        call: &CallId,
        wanted: Wanted<'_>,
        mut socket: Option<&mut ServerSocket>,
    ) -> Result<Self, NotAttached> {
        for _ in 0..TRIES {
            // Messages of an earlier session are not valid for this one.
            let outlet = Arc::new(Outlet::default());
            let (reply, answer) = oneshot::channel();
            let attach = Attach {
                stream: wanted.stream.clone(),
                dialect: wanted.dialect,
                offset_ms: wanted.offset_ms,
                meta: wanted.meta.clone(),
                analyses: wanted.analyses.map(<[String]>::to_vec),
                variants: wanted.variants.clone(),
                asking: wanted.asking.cloned(),
                outlet: Arc::clone(&outlet),
                reply,
            };
            let told = sessions.tell(call, true, Command::Attach(Box::new(attach))).await;
            let commands = told.map_err(NotAttached::Session)?;
            let attached = match socket.as_deref_mut() {
                Some(socket) => until_answered(socket, &outlet, answer).await,
                None => answer.await,
            };
            match attached {
                Ok(Attached::Welcome(welcome) | Attached::Completed(welcome)) => {
                    let dialect = stt::dialect(welcome.dialect).unwrap_or(wanted.dialect);
                    let pump = Pump::new(dialect, &welcome.carry);
                    let stream = wanted.stream.clone();
                    return Ok(Self { stream, commands, waiting: None, pump, outlet, welcome });
                }
                Ok(Attached::Refused { code, message, close }) => {
                    return Err(NotAttached::Refused { code, message, close });
                }
                // The session was ending, or was rebuilt: the next attempt reaches its successor.
                Err(_) => {}
            }
        }
        Err(NotAttached::Session(SessionError::Failed(call.clone())))
    }

    /// Returns true if the call is completed and accepts no frame.
    pub(super) fn is_over(&self) -> bool {
        self.welcome.connection == 0
    }

    /// Decodes the next frame: returns what to send to the session, and the errors in the frame.
    pub(super) fn decode(&mut self, text: &str, lease: Option<Lease>) -> (Frames, Option<ErrorFrame>) {
        let (events, error) = self.pump.feed(text);
        let frames = Frames { lease, ..self.frames(self.pump.count, Arc::clone(&self.pump.carry), events) };
        (frames, error)
    }

    /// How well the newest frame fits the dialect.
    pub(super) fn fit(&self) -> Fit {
        self.pump.fit
    }

    /// Wraps a frame that was decoded before.
    pub(super) fn frames(&self, count: u64, carry: Arc<Carry>, events: Vec<SttEvent>) -> Frames {
        Frames {
            connection: self.welcome.connection,
            stream: self.stream.clone(),
            count,
            carry,
            events,
            asks: Vec::new(),
            lease: None,
        }
    }

    /// Sends frames to the session, and waits for room in its queue; returns false if the session is gone.
    ///
    /// # Cancel safety
    /// If this future is dropped, the frames may or may not have been queued.
    pub(super) async fn send(&mut self, frames: Frames) -> bool {
        self.commands.send(Command::Frames(Box::new(frames))).await.is_ok()
    }

    /// As [`Self::send`], but without waiting: if the queue is full, the frames are kept here, and nothing else may be
    /// sent before [`Self::retry`].
    pub(super) fn offer(&mut self, frames: Frames) -> bool {
        self.pass(Command::Frames(Box::new(frames)))
    }

    /// Returns true if frames are kept here because the queue was full.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// The session's queue, to wait for room in it.
    pub(super) fn queue(&self) -> &Sender<Command> {
        &self.commands
    }

    /// Sends the frames that were kept; returns false if the session is gone.
    pub(super) fn retry(&mut self) -> bool {
        self.waiting.take().is_none_or(|command| self.pass(command))
    }

    fn pass(&mut self, command: Command) -> bool {
        match self.commands.offer(command) {
            Ok(()) => true,
            Err(SendError::Full(command)) => {
                self.waiting = Some(command);
                true
            }
            Err(SendError::Closed(_)) => false,
        }
    }

    /// Reports speech that was lost before it reached the session.
    pub(super) async fn gap(&mut self, cause: GapCause, from_ms: u64, to_ms: u64) {
        let gap = Gap { stream: self.stream.clone(), cause, from_ms, to_ms };
        // If the session is gone, the next frame finds that out.
        let _ = self.commands.send(Command::Gap(Box::new(gap))).await;
    }

    /// Detaches from the session once everything that was read is queued; returns false if the session is gone.
    pub(super) async fn detach(self) -> bool {
        if let Some(command) = self.waiting {
            let _ = self.commands.send(command).await;
        }
        let gone = Detach { connection: self.welcome.connection, stream: self.stream };
        self.commands.send(Command::Detach(Box::new(gone))).await.is_ok()
    }
}

/// Waits for the session's answer to the attachment. Meanwhile, errors from the session for the producer are sent to
/// it.
async fn until_answered(
    socket: &mut ServerSocket,
    outlet: &Outlet,
    mut answer: oneshot::Receiver<Attached>,
) -> Result<Attached, oneshot::error::RecvError> {
    loop {
        tokio::select! {
            biased;
            answered = &mut answer => return answered,
            outbound = outlet.next() => {
                if let Some(close) = outbound.close {
                    outlet.close(close);
                    return answer.await;
                }
                let errors: Vec<Utf8Bytes> =
                    outbound.errors.iter().map(|error| Utf8Bytes::from(protocol::text(error))).collect();
                // A lost producer is noticed after the attachment.
                let _ = socket.send(errors).await;
            }
        }
    }
}
