//! One stream's part of the table: its vendor turns, and the number of the next turn. Knows no turn's content.

use std::collections::HashMap;

use super::saved::VendorTurn;
use crate::types::{Final, TurnKey};

/// The state of one stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) vendors: Vec<VendorTurn>,
    pub(super) by_key: HashMap<TurnKey, usize>,
    /// The next `turn_order`, dense from 0.
    pub(super) next_order: u64,
    pub(super) highest: Option<u64>,
    /// Vendor turns whose state changed without a change of a turn: they are saved with the stream's next change.
    pub(super) unsaved: Vec<usize>,
    /// Number of early revisions that wait, over all vendor turns.
    pub(super) early: usize,
}

impl Stream {
    pub(super) fn insert(&mut self, vendor: VendorTurn) -> usize {
        self.by_key.insert(vendor.key.clone(), self.vendors.len());
        self.vendors.push(vendor);
        self.vendors.len() - 1
    }

    pub(super) fn count(&mut self, turn_order: u64) {
        self.highest = self.highest.max(Some(turn_order));
        self.next_order = self.next_order.max(turn_order.saturating_add(1));
    }

    pub(super) fn mark_unsaved(&mut self, index: usize) {
        if !self.unsaved.contains(&index) {
            self.unsaved.push(index);
        }
    }

    pub(super) fn forget_early(&mut self, index: usize) {
        let forgotten = std::mem::take(&mut self.vendors[index].early).len();
        self.early -= forgotten;
        if forgotten > 0 {
            self.mark_unsaved(index);
        }
    }

    pub(super) fn restore(&mut self, saved: VendorTurn) -> usize {
        self.early += saved.early.len();
        match self.by_key.get(&saved.key) {
            Some(&index) if self.vendors[index].first == saved.first || self.vendors[index].first.is_none() => {
                let known = &mut self.vendors[index];
                self.early -= known.early.len();
                let parts = std::mem::take(&mut known.parts);
                *known = VendorTurn { parts, ..saved };
                index
            }
            _ => self.insert(saved),
        }
    }

    /// Removes the keys of unfinished turns except those of `held`: the other turns have ended.
    pub(super) fn end_all_but(&mut self, held: &[Final]) {
        self.by_key.retain(|key, _| !matches!(key, TurnKey::Held(_)) || held.iter().any(|last| last.key == *key));
    }
}
