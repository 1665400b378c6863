//! Analyses: named questions asked of a call, as data.

pub mod trigger;
