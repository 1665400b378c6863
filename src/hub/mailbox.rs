//! Messages of a publisher to a reader: which of its calls have news, and a small lossy buffer of live frames.
//!
//! Knows no position and no journal. Every operation holds its lock for a few instructions only, so that a publisher
//! never waits for a reader.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use tokio::sync::Notify;

use super::{Dropped, Live};
use crate::base::sync::lock;
use crate::base::wake;
use crate::types::Seq;

/// Maximum number of live frames that wait for one reader.
const LIVE_FRAMES: usize = 64;
/// Maximum size of the live frames that wait for one reader, bytes. The newest one is always kept.
const LIVE_BYTES: usize = 16 * 1024;

/// A live frame, and the sequenced event after which it was published: it must not overtake those before it, nor be
/// overtaken by those after it.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub live: Arc<Live>,
    /// The call's newest `seq` at that time; 0 = unknown.
    pub after: Seq,
    /// The newest `order` at that time.
    pub after_order: u64,
}

#[derive(Debug, Default)]
struct Mail {
    dirty: Vec<usize>,
    live: VecDeque<Waiting>,
    live_bytes: usize,
    dropped: Dropped,
}

/// One reader's mailbox.
#[derive(Debug)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    notify: Arc<Notify>,
}

/// A reader's registration with the tail of one call, or of all calls.
#[derive(Debug)]
pub(super) struct Watch {
    pub mailbox: Arc<Mailbox>,
    slot: usize,
    dirty: AtomicBool,
}

impl Watch {
    pub(super) fn new(mailbox: &Arc<Mailbox>, slot: usize) -> Arc<Self> {
        Arc::new(Self { mailbox: Arc::clone(mailbox), slot, dirty: AtomicBool::new(false) })
    }

    /// Marks that there is news, which must be readable before this is called. Does nothing if the reader has not
    /// looked since the last mark. Returns true if the reader was woken.
    pub(super) fn mark(&self) -> bool {
        if self.dirty.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.mailbox.lock().dirty.push(self.slot);
        self.mailbox.notify.notify_one();
        true
    }

    /// Must be called before reading: everything that is published from now on marks the mailbox again.
    pub(super) fn clear(&self) {
        self.dirty.swap(false, Ordering::AcqRel);
    }
}

impl Mailbox {
    pub(super) fn new(notify: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { mail: Mutex::default(), notify })
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        lock(&self.mail)
    }

    pub(super) fn notify(&self) -> &Arc<Notify> {
        &self.notify
    }

    /// A waker that wakes the reader.
    pub(super) fn waker(&self) -> Waker {
        wake::waker(&self.notify)
    }

    /// Takes the slots that have news.
    pub(super) fn take_dirty(&self, into: &mut VecDeque<usize>) {
        into.extend(self.lock().dirty.drain(..));
    }

    /// Adds a live frame; if there is no room, the oldest are dropped.
    pub(super) fn push_live(&self, waiting: Waiting) {
        let mut mail = self.lock();
        mail.live_bytes += waiting.live.text.len();
        mail.live.push_back(waiting);
        while mail.live.len() > 1 && (mail.live.len() > LIVE_FRAMES || mail.live_bytes > LIVE_BYTES) {
            if let Some(oldest) = mail.live.pop_front() {
                mail.live_bytes -= oldest.live.text.len();
                mail.dropped.count(&oldest.live.kind);
            }
        }
        drop(mail);
        self.notify.notify_one();
    }

    /// Takes the live frames for which `ready` returns true, in order, and the number dropped since the last call.
    pub(super) fn take_live(&self, mut ready: impl FnMut(&Waiting) -> bool) -> (Vec<Waiting>, Option<Dropped>) {
        let mut mail = self.lock();
        let dropped = std::mem::take(&mut mail.dropped);
        let dropped = (dropped != Dropped::default()).then_some(dropped);
        if mail.live.is_empty() {
            return (Vec::new(), dropped);
        }
        let mut taken = Vec::new();
        mail.live.retain(|waiting| {
            let is_ready = ready(waiting);
            if is_ready {
                taken.push(waiting.clone());
            }
            !is_ready
        });
        mail.live_bytes = mail.live.iter().map(|waiting| waiting.live.text.len()).sum();
        (taken, dropped)
    }

    /// Removes the live frames for which `gone` returns true.
    pub(super) fn forget_live(&self, gone: impl Fn(&Live) -> bool) {
        let mut mail = self.lock();
        mail.live.retain(|waiting| !gone(&waiting.live));
        mail.live_bytes = mail.live.iter().map(|waiting| waiting.live.text.len()).sum();
    }
}
