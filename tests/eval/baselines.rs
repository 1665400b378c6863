//! The methods with which the embedded provider is compared.

use std::collections::{HashMap, HashSet};

use sidetone::evaluation::rouge::tokens;
use vader_sentimental::SentimentIntensityAnalyzer;

use crate::data::Call;

/// The VADER lexicon at a threshold.
pub(crate) fn vader(text: &str, threshold: f64) -> &'static str {
    let compound = SentimentIntensityAnalyzer::new().polarity_scores(text).compound;
    if compound >= threshold {
        "positive"
    } else if compound <= -threshold {
        "negative"
    } else {
        "neutral"
    }
}

/// The first turns.
pub(crate) fn first(call: &Call, count: usize) -> String {
    join(call, (0..call.turns.len().min(count)).collect())
}

/// The longest turns.
pub(crate) fn longest(call: &Call, count: usize) -> String {
    best(call, count, |index| call.turns[index].text.split_whitespace().count() as f64)
}

/// The turns nearest to the TF-IDF centroid.
pub(crate) fn centroid(call: &Call, count: usize) -> String {
    let turns: Vec<Vec<String>> = call.turns.iter().map(|turn| tokens(&turn.text)).collect();
    let mut with: HashMap<&str, f64> = HashMap::new();
    for turn in &turns {
        for token in turn.iter().map(String::as_str).collect::<HashSet<_>>() {
            *with.entry(token).or_default() += 1.0;
        }
    }
    let rare = |token: &str| ((turns.len() as f64 + 1.0) / (with[token] + 0.5)).ln();
    let vector = |tokens: &mut dyn Iterator<Item = &String>| {
        let mut vector: HashMap<String, f64> = HashMap::new();
        for token in tokens {
            *vector.entry(token.clone()).or_default() += rare(token);
        }
        vector
    };
    let centre = vector(&mut turns.iter().flatten());
    best(call, count, |index| cosine(&vector(&mut turns[index].iter()), &centre))
}

fn cosine(one: &HashMap<String, f64>, other: &HashMap<String, f64>) -> f64 {
    let norm = |vector: &HashMap<String, f64>| vector.values().map(|value| value * value).sum::<f64>().sqrt();
    let dot: f64 = one.iter().map(|(token, value)| value * other.get(token).copied().unwrap_or_default()).sum();
    if dot == 0.0 { 0.0 } else { dot / (norm(one) * norm(other)) }
}

fn best(call: &Call, count: usize, score: impl Fn(usize) -> f64) -> String {
    let mut order: Vec<(usize, f64)> = (0..call.turns.len()).map(|index| (index, score(index))).collect();
    order.sort_by(|one, other| other.1.total_cmp(&one.1));
    join(call, order.into_iter().take(count).map(|(index, _)| index).collect())
}

fn join(call: &Call, mut turns: Vec<usize>) -> String {
    turns.sort_unstable();
    turns.into_iter().map(|index| call.turns[index].text.as_str()).collect::<Vec<_>>().join(" ")
}
