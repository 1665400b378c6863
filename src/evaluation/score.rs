//! Accuracy and macro-F1 of labels.

use std::fmt;

use serde::Serialize;

/// The labels of a sentiment.
pub const CLASSES: [&str; 3] = ["negative", "neutral", "positive"];

/// How well the labels of an analysis match those of people.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// Share of labels that match.
    pub accuracy: f64,
    /// Mean of `f1`.
    pub macro_f1: f64,
    /// F1 of each of [`CLASSES`]; 0 for a class that occurs on neither side.
    pub f1: [f64; 3],
}

impl Score {
    /// The scores of pairs of labels: the right one, and the one of the analysis. `None` without pairs. A label that is
    /// not in [`CLASSES`] counts as wrong.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let pairs: Vec<(&str, &str)> = pairs.into_iter().collect();
        if pairs.is_empty() {
            return None;
        }
        let right = pairs.iter().filter(|(gold, found)| gold == found).count();
        let f1 = CLASSES.map(|class| {
            let both = pairs.iter().filter(|(gold, found)| *gold == class && *found == class).count();
            let either = pairs.iter().map(|(gold, found)| usize::from(*gold == class) + usize::from(*found == class));
            let either: usize = either.sum();
            if either == 0 { 0.0 } else { 2.0 * both as f64 / either as f64 }
        });
        Some(Self { accuracy: right as f64 / pairs.len() as f64, macro_f1: f1.iter().sum::<f64>() / 3.0, f1 })
    }
}

impl fmt::Display for Score {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [negative, neutral, positive] = self.f1;
        write!(formatter, "{:.3} {:.3}  ({negative:.2} {neutral:.2} {positive:.2})", self.accuracy, self.macro_f1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn score_is_that_of_a_calculation_by_hand() {
        let pairs = [
            ("negative", "negative"),
            ("negative", "neutral"),
            ("neutral", "neutral"),
            ("positive", ""),
            ("neutral", "positive"),
        ];
        let score = Score::of(pairs).expect("pairs");
        assert!((score.accuracy - 0.4).abs() < 1e-12);
        // negative: 2*1/(2+1), neutral: 2*1/(2+2), positive: 2*0/(1+1).
        let expected = [2.0 / 3.0, 0.5, 0.0];
        assert!(score.f1.iter().zip(expected).all(|(found, right)| (found - right).abs() < 1e-12), "{score}");
        assert!((score.macro_f1 - (2.0 / 3.0 + 0.5) / 3.0).abs() < 1e-12);
        assert_eq!(Score::of([]), None);
    }
}
