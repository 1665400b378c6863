//! Figures that measure the insights of calls: labels compared with those of people, texts compared with those of
//! people, and summaries while a call goes on.
//!
//! Pure. Knows no recording, no model and no output. `src/docs/comparing.md` says what each figure means, and its
//! source.

pub mod interval;
pub mod labels;
pub mod online;
pub mod rouge;
pub mod score;
pub mod values;
