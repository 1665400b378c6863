//! Recognises sentences which say that something was done. English.

/// Phrases that say, with a participle after them, that something is done.
static DONE: &[&str] = &["i've", "i have", "we've", "we have", "i just", "we just", "has been", "have been"];
/// Participles that do not end in "ed".
static PARTICIPLES: &str =
    "sent done made paid put set found written taken given bought brought got gone spoken told left";
/// Adverbs that may come between the phrase and the participle.
static ADVERBS: &str = "just already now also both all";

/// Returns true if a speaker says that something was done: "I have just sent it", "it has been cancelled".
pub(super) fn says_done(said: &str) -> bool {
    let is_in = |list: &str, word: &str| list.split(' ').any(|known| known == word);
    let participle = |rest: &str| {
        let next = rest.split_whitespace().find(|word| !is_in(ADVERBS, word));
        next.is_some_and(|word| word.ends_with("ed") || is_in(PARTICIPLES, word))
    };
    let behind = |marker: &&str| {
        let places = said.match_indices(*marker).filter(|(at, _)| said[..*at].ends_with(' '));
        places.map(|(at, _)| &said[at + marker.len()..]).any(|rest| rest.starts_with(' ') && participle(rest))
    };
    DONE.iter().any(behind)
}

#[cfg(test)]
mod tests {
    use super::super::service::spoken;
    use super::*;

    #[test]
    fn deeds_that_are_done_are_told_from_those_to_come() {
        for said in [
            "I have just sent it.",
            "I've cancelled the card.",
            "It has been paid already.",
            "We have now put it down.",
        ] {
            assert!(says_done(&spoken(said)), "{said}");
        }
        for said in ["I have a question.", "I have to send it.", "I will send it.", "It is red."] {
            assert!(!says_done(&spoken(said)), "{said}");
        }
    }
}
