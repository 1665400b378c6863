//! Recognises sentences that contain an outcome: something that was promised, booked, paid, decided or refused, and
//! when or how much.
//!
//! Knows no subject: only verbs of agreement, times and amounts. English, and digits in any language.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::words;

/// Stems of verbs that settle a matter (see [`words::content`]).
static DEALINGS: &str = "promise promis guarante guarantee book schedul schedule confirm arrang arrange refund credit reimburs \
    reimburse cancel send sent ship deliver delivery replac replace transfer escalat escalate charg charge waiv waive approv approve \
    declin decline deni deny denied refus refuse reject accept agre agree decid decide settl settle fix fixed resolv resolve solv solve \
    appointment order issu issue apply paid pay sign hire offer call email mail expect reserv reserve assign finish complet complete \
    prepar prepare unable unfortunate";

/// Words with which speakers promise something, or say that it is impossible.
static PROMISES: &str = "will i'll we'll you'll he'll she'll they'll it'll won't can't cannot shall gonna must";

/// Words of times and amounts, besides digits.
static MEASURES: &str = "today tonight tomorrow monday tuesday wednesday thursday friday saturday sunday january february march \
    april june july august september october november december morning afternoon evening noon midnight minutes minute hours \
    hour days day weeks week months month years year dollars dollar euros euro pounds pound cents percent o'clock";

static DEALING_SET: LazyLock<HashSet<&'static str>> = LazyLock::new(|| DEALINGS.split_whitespace().collect());
static PROMISE_SET: LazyLock<HashSet<&'static str>> = LazyLock::new(|| PROMISES.split_whitespace().collect());
static MEASURE_SET: LazyLock<HashSet<&'static str>> = LazyLock::new(|| MEASURES.split_whitespace().collect());

/// How much of an outcome a text contains, from 0 to 1, by its best sentence: a settled matter, a promise or a refusal,
/// a time or an amount. Questions contain none.
pub(super) fn of(text: &str) -> f64 {
    words::sentences(text).map(of_sentence).fold(0.0, f64::max)
}

fn of_sentence(text: &str) -> f64 {
    if words::is_question(text) {
        return 0.0;
    }
    let deals = words::content(text).iter().any(|stem| DEALING_SET.contains(stem.as_str()));
    let (mut promises, mut measures) = (false, false);
    for word in words::plain(text) {
        promises |= PROMISE_SET.contains(word.as_str());
        measures |= MEASURE_SET.contains(word.as_str()) || words::is_number(&word) && word != "one" && word != "first";
    }
    let parts = [(deals, 0.5), (promises, 0.2), (measures, 0.3)];
    parts.iter().filter(|(is, _)| *is).map(|(_, weight)| weight).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_weigh_more_than_other_sentences() {
        let settled = [
            "I have booked it for Thursday between eight and ten.",
            "We cannot accept the return.",
            "You will get 36 dollars back.",
        ];
        let talk = ["When will that be?", "I see.", "The line goes along the street."];
        for settled in settled {
            for talk in talk {
                assert!(of(settled) > of(talk), "{settled} {talk}");
            }
        }
    }
}
