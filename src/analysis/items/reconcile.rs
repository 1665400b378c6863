//! Finds which items of a whole list existed before.

use std::collections::HashMap;

use super::similar::{ALIKE, Bag};

/// For each wanted item the index of the same old item: the one with its id, else one with the same words, else the
/// most similar one. No old item is used twice.
pub(super) fn matching(wanted: &[(String, Bag)], ids: &[String], bags: &[Bag]) -> Vec<Option<usize>> {
    let mut matched: Vec<Option<usize>> = vec![None; wanted.len()];
    let mut taken = vec![false; ids.len()];
    let mut take = |slot: &mut Option<usize>, index: usize| {
        let free = slot.is_none() && !std::mem::replace(&mut taken[index], true);
        if free {
            *slot = Some(index);
        }
    };
    for (slot, (id, _)) in matched.iter_mut().zip(wanted) {
        if let Some(index) = ids.iter().position(|known| known == id) {
            take(slot, index);
        }
    }
    let mut by_words: HashMap<&Bag, Vec<usize>> = HashMap::new();
    for (index, bag) in bags.iter().enumerate().filter(|(_, bag)| !bag.is_empty()) {
        by_words.entry(bag).or_default().push(index);
    }
    for (slot, (_, bag)) in matched.iter_mut().zip(wanted) {
        for index in by_words.get(bag).into_iter().flatten() {
            if slot.is_none() {
                take(slot, *index);
            }
        }
    }
    let mut pairs = Vec::new();
    for (number, (_, bag)) in wanted.iter().enumerate().filter(|(number, _)| matched[*number].is_none()) {
        let alike = bags.iter().enumerate().map(|(index, old)| (bag.likeness(old), number, index));
        pairs.extend(alike.filter(|(likeness, ..)| *likeness >= ALIKE));
    }
    // The sort is stable: of equally similar items, the earlier one comes first.
    pairs.sort_by(|one, other| other.0.total_cmp(&one.0));
    for (_, number, index) in pairs {
        take(&mut matched[number], index);
    }
    matched
}
