//! ROUGE-1 and ROUGE-L (Lin, 2004), F1, over lower-case ASCII letters and digits, without stemming.

use std::collections::HashMap;

/// The words of a text.
pub fn tokens(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let tokens = lower.split(|character: char| !character.is_ascii_alphanumeric());
    tokens.filter(|token| !token.is_empty()).map(str::to_owned).collect()
}

/// ROUGE-1 (F1): a word counts as often as both texts contain it.
pub fn one(made: &[String], human: &[String]) -> f64 {
    let mut left: HashMap<&str, usize> = HashMap::new();
    for token in human {
        *left.entry(token).or_default() += 1;
    }
    let common = made.iter().filter(|token| {
        left.get_mut(token.as_str()).is_some_and(|count| {
            let there = *count > 0;
            *count = count.saturating_sub(1);
            there
        })
    });
    f1(common.count(), made.len(), human.len())
}

/// ROUGE-L (F1), from the longest common subsequence of words.
pub fn longest(made: &[String], human: &[String]) -> f64 {
    let mut row = vec![0_usize; human.len() + 1];
    for token in made {
        let mut diagonal = 0;
        for (index, other) in human.iter().enumerate() {
            let above = row[index + 1];
            row[index + 1] = if token == other { diagonal + 1 } else { above.max(row[index]) };
            diagonal = above;
        }
    }
    f1(row[human.len()], made.len(), human.len())
}

fn f1(common: usize, made: usize, human: usize) -> f64 {
    if common == 0 { 0.0 } else { 2.0 * common as f64 / (made + human) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_a_calculation_by_hand() {
        let (made, human) = (tokens("The cat sat, the cat."), tokens("the cat lay on the mat"));
        assert_eq!(made, ["the", "cat", "sat", "the", "cat"]);
        // In common: the, the, cat. 2 * 3 / (5 + 6).
        assert!((one(&made, &human) - 6.0 / 11.0).abs() < 1e-12);
        // In order: the, cat, the.
        assert!((longest(&made, &human) - 6.0 / 11.0).abs() < 1e-12);
        let turned = tokens("mat lay cat");
        // In order: one word of three.
        assert!((longest(&turned, &human) - 2.0 / 9.0).abs() < 1e-12);
        assert_eq!((one(&[], &human), longest(&made, &[])), (0.0, 0.0));
    }
}
