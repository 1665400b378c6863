//! How good the insights of calls are, in figures: of labels, of texts beside those of people, and of summaries that are
//! made while a call goes on.
//!
//! Pure. Knows no recording, no model and no way to show a figure. `src/docs/comparing.md` says what each figure means and
//! where it is from.

pub mod interval;
pub mod labels;
pub mod online;
pub mod rouge;
pub mod score;
pub mod values;
