//! Notices that nothing of what comes on a connection is understood, and says so once.
//!
//! Knows frames only by whether the dialect knew them; what to say about them is the dialects' business. The bound is
//! [`FRAMES`] frames or [`PATIENCE`] from the first of them, whichever comes first. After one frame that is known, nothing is
//! watched any more; control messages alone do not end it.

use std::time::Duration;

use tokio::time::Instant;

use crate::stt::{self, Dialect, Fit};

/// Frames of which none is understood before the producer is told.
pub(super) const FRAMES: usize = 5;
/// Time from the first frame without one that is understood before the producer is told.
const PATIENCE: Duration = Duration::from_secs(5);
/// Frames are kept up to this, bytes in all; what does not fit is only counted.
const KEPT_BYTES: usize = 256 << 10;

/// The first frames of one connection.
pub(super) struct Watch {
    dialect: &'static dyn Dialect,
    frames: Vec<String>,
    kept_bytes: usize,
    /// Frames that were not understood.
    count: usize,
    /// A control message was known.
    control: bool,
    /// When the bound in time is reached; `None` before the first frame.
    until: Option<Instant>,
    over: bool,
}

impl Watch {
    /// For a new connection that asked for `dialect`.
    pub(super) fn new(dialect: &'static dyn Dialect) -> Self {
        Self { dialect, frames: Vec::new(), kept_bytes: 0, count: 0, control: false, until: None, over: false }
    }

    /// Notes the next frame. What to say where it is the last one of the bound.
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

    /// Waits until the bound in time is reached without a frame that was understood, and gives what to say. Never ends
    /// where there is nothing to say.
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

    /// What to say, which ends the watch. Where the dialect knew some control messages, there must be another one that knows
    /// more: names of such messages are common to several vendors.
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
        // A message that both vendors have.
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
