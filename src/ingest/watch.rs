//! Notices that no frame of a connection is understood, and produces one error message about it.
//!
//! Knows of a frame only how well it fits the dialect; the dialects provide the message. The limit is [`FRAMES`]
//! frames, or [`PATIENCE`] after the first of them, whichever comes first. After one frame that fits, the watch ends; a
//! control message alone does not end it.

use std::time::Duration;

use tokio::time::Instant;

use crate::stt::{self, Dialect, Fit};

/// Number of frames without one that is understood after which the producer gets the error.
pub(super) const FRAMES: usize = 5;
/// Time since the first frame without one that is understood after which the producer gets the error.
const PATIENCE: Duration = Duration::from_secs(5);
/// Frames are kept for the message up to this total, bytes; further ones are only counted.
const KEPT_BYTES: usize = 256 << 10;

/// Watches the first frames of one connection.
pub(super) struct Watch {
    dialect: &'static dyn Dialect,
    frames: Vec<String>,
    kept_bytes: usize,
    /// Number of frames that were not understood.
    count: usize,
    /// Set once a control message was understood.
    control: bool,
    /// When the time limit is reached; `None` before the first frame.
    until: Option<Instant>,
    over: bool,
}

impl Watch {
    /// Starts for a new connection that asked for `dialect`.
    pub(super) fn new(dialect: &'static dyn Dialect) -> Self {
        Self { dialect, frames: Vec::new(), kept_bytes: 0, count: 0, control: false, until: None, over: false }
    }

    /// Counts the next frame. Returns the error message if the limit is reached.
    pub(super) fn note(&mut self, frame: &str, fit: Fit) -> Option<String> {
        if self.over {
            return None;
        }
        match fit {
            Fit::Neutral => None,
            Fit::Known => {
                self.close();
                None
            }
            Fit::Control => {
                self.control = true;
                self.keep(frame);
                None
            }
            Fit::Unknown => {
                self.until.get_or_insert_with(|| Instant::now() + PATIENCE);
                self.count += 1;
                self.keep(frame);
                if self.count == FRAMES { self.conclude(&format!("{FRAMES} frames")) } else { None }
            }
        }
    }

    /// Waits until the time limit is reached without a frame that was understood, and returns the error message. Never
    /// ends if there is nothing to report.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn expired(&mut self) -> String {
        if let Some(until) = self.until.filter(|_| !self.over) {
            tokio::time::sleep_until(until).await;
            if let Some(message) = self.conclude(&format!("{} s", PATIENCE.as_secs())) {
                return message;
            }
        }
        std::future::pending().await
    }

    /// The error message; ends the watch. If the dialect understood some control messages, the error is reported only
    /// if another dialect understands more: several vendors share the names of such messages.
    fn conclude(&mut self, bound: &str) -> Option<String> {
        let frames: Vec<&str> = self.frames.iter().map(String::as_str).collect();
        let told = !self.control || stt::likelier(self.dialect, &frames).is_some();
        let message = told.then(|| stt::not_understood(self.dialect, bound, &frames));
        self.close();
        message
    }

    fn keep(&mut self, frame: &str) {
        if self.kept_bytes + frame.len() <= KEPT_BYTES {
            self.kept_bytes += frame.len();
            self.frames.push(frame.to_owned());
        }
    }

    fn close(&mut self) {
        self.over = true;
        self.frames = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(dialect: &str) -> Watch {
        Watch::new(stt::dialect(dialect).expect("dialect"))
    }

    #[tokio::test(start_paused = true)]
    async fn watch_five_unknown_frames_says_so_once() {
        let mut watch = watch("deepgram");
        for _ in 1..FRAMES {
            assert_eq!(watch.note(r#"{"type":"Begin","id":"b"}"#, Fit::Unknown), None);
            assert_eq!(watch.note(r#"{"type":"meta"}"#, Fit::Neutral), None);
        }
        let said = watch.note(r#"{"type":"Begin","id":"b"}"#, Fit::Unknown).expect("said");
        assert!(said.contains("first 5 frames") && said.contains("dialect=assemblyai"), "{said}");
        assert_eq!(watch.note("{}", Fit::Unknown), None);
        assert!(tokio::time::timeout(PATIENCE * 9, watch.expired()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn watch_five_seconds_from_the_first_frame_says_so_once() {
        let mut watch = watch("deepgram");
        assert!(tokio::time::timeout(PATIENCE * 9, watch.expired()).await.is_err(), "no frame, nothing to say");
        assert_eq!(watch.note("{}", Fit::Unknown), None);
        tokio::time::advance(PATIENCE / 2).await;
        assert_eq!(watch.note("{}", Fit::Unknown), None);
        let began = Instant::now();
        let said = watch.expired().await;
        assert_eq!(began.elapsed(), PATIENCE / 2);
        assert!(said.contains("first 5 s"), "{said}");
        assert!(tokio::time::timeout(PATIENCE * 9, watch.expired()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn watch_control_messages_count_for_the_dialect_that_knows_more() {
        // A message that exists in both vendors' formats.
        let shared = r#"{"type":"SpeechStarted","timestamp":0}"#;
        let mut foreign = watch("deepgram");
        foreign.note(shared, Fit::Control);
        let said: Vec<String> =
            (0..FRAMES).filter_map(|_| foreign.note(r#"{"type":"Begin","id":"b"}"#, Fit::Unknown)).collect();
        assert!(matches!(&said[..], [said] if said.contains("dialect=assemblyai")), "{said:?}");
        let mut new = watch("deepgram");
        new.note(shared, Fit::Control);
        assert!((0..FRAMES).all(|_| new.note(r#"{"type":"Novelty"}"#, Fit::Unknown).is_none()));
        assert!(tokio::time::timeout(PATIENCE * 9, new.expired()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn watch_a_known_frame_ends_it() {
        let mut watch = watch("deepgram");
        for _ in 1..FRAMES {
            assert_eq!(watch.note("{}", Fit::Unknown), None);
        }
        assert_eq!(watch.note("{}", Fit::Known), None);
        assert!((0..9).all(|_| watch.note("{}", Fit::Unknown).is_none()));
        assert!(tokio::time::timeout(PATIENCE * 9, watch.expired()).await.is_err());
    }
}
