//! Words and phrases of conversation that express feelings.
//!
//! Compiled by hand from everyday English. The VADER lexicon (Hutto and Gilbert, 2014), which the crate contains, was
//! made for written social media and takes polite words ("please", "okay", "sure") for joy, so such words are not
//! passed to it.

/// The weight, and words that have it.
type Group = (f64, &'static str);

static GROUPS: &[Group] = &[
    (
        0.9,
        "love loved loves loving adore adored amazing awesome wonderful fantastic incredible brilliant excellent \
         perfect beautiful gorgeous congratulations congrats yay woohoo hooray thrilled delighted delicious proud \
         grateful terrific fabulous magnificent outstanding superb marvelous ecstatic",
    ),
    (
        0.5,
        "great cool nice sweet cute fun funny glad happy happier excited exciting wow whoa aww haha hahaha welcome \
         finally helpful appreciate appreciated enjoy enjoyed lucky best pleased smile kiss kissed kissing married marry \
         engaged celebrate won win winner impressive lovely charming blessed cheers bravo pleasure relieved hilarious \
         interesting adorable handsome pretty yummy tasty surprise kidding miracle",
    ),
    (
        -0.9,
        "hate hated hates terrible horrible awful disgusting pathetic stupid idiot idiots jerk bastard bitch damn \
         dammit damnit ugh eww ew gross furious angry ridiculous unacceptable worst ruined hopeless terrified miserable \
         depressed humiliated frustrated frustrating annoyed annoying disappointed disappointing outrageous rude liar \
         lied lying betrayed cheated stolen fraud scam shut dumb moron loser creep creepy horrified devastated \
         heartbroken pissed sucks sucked crap nightmare useless incompetent",
    ),
    (
        -0.6,
        "sorry hurt hurts hurting pain painful sick dead died die dying kill killed killing broke broken mad upset \
         afraid scared scary worried worry cry crying cried lonely jealous embarrassed embarrassing guilty ashamed fault \
         hell bad worse wrong evil nasty sad unfair crazy insane nuts weird freak freaking freaked mistake mess problem \
         problems trouble fail failed failure unfortunately complaint complain ouch ow fight fighting screwed lost losing \
         lose attack fired dumped divorce ruin disaster unbelievable poor",
    ),
    (
        -0.35,
        "no noo not never can't cannot won't don't didn't doesn't isn't wasn't aren't haven't hasn't couldn't wouldn't \
         shouldn't ain't nothing nobody none stop wait leave leaving alone missed miss forget tired stuck hard difficult \
         complicated impossible strange confused confusing late expensive blame lie stole hit",
    ),
];

/// Phrases, whose weight is added to that of their words.
pub(super) static PHRASES: &[(&str, f64)] = &[
    ("thank god", 0.4),
    ("can't wait", 1.1),
    ("good luck", 0.6),
    ("well done", 0.8),
    ("good job", 0.8),
    ("great job", 0.5),
    ("no problem", 0.9),
    ("not bad", 1.2),
    ("check it out", 0.5),
    ("guess what", 0.5),
    ("let's", 0.3),
    ("you're right", 0.3),
    ("of course", 0.3),
    ("shut up", -0.3),
    ("get out", -0.7),
    ("go away", -0.8),
    ("leave me alone", -0.5),
    ("how dare", -0.9),
    ("how could", -0.8),
    ("oh no", -0.5),
    ("oh my god", -0.1),
    ("what the hell", -0.4),
    ("good bye", -0.4),
    ("goodbye", -0.4),
    ("i can't believe", 0.2),
    ("are you kidding", -0.9),
    ("no idea", -0.1),
    ("no kidding", 0.8),
    ("big deal", 0.3),
    ("excuse me", -0.3),
    ("not fair", -0.5),
    ("no way", 0.1),
    ("here we go again", -0.6),
    ("about time", -0.4),
    ("thank you so much", 0.5),
    ("thanks so much", 0.5),
    ("so much fun", 0.3),
    ("makes sense", 0.3),
    ("thank you", 0.35),
    ("thanks", 0.35),
    ("see you", 0.4),
    ("talk to you", 0.4),
    ("take care", 0.4),
    ("have a good", 0.5),
    ("good morning", 0.4),
    ("good afternoon", 0.4),
    ("good evening", 0.4),
    ("good night", 0.4),
    ("sounds good", 0.4),
    ("got it", 0.3),
    ("here you go", 0.4),
    ("no worries", 0.7),
];

/// Words that reverse the feeling of the next three words.
static NEGATIONS: &str = "not no never can't cannot won't don't didn't doesn't isn't wasn't aren't haven't hasn't couldn't \
                          wouldn't shouldn't ain't without hardly";
/// Words at the start of an exclamation that show joy.
static GREETINGS: &str = "hey hi hello yes yeah yep okay ok sure absolutely course morning alright bye welcome here";
/// Words at the start of an exclamation that show annoyance.
static QUESTIONS: &str = "what why how where who";
/// Words of politeness and assent, and fillers, that the VADER lexicon takes for feelings.
static POLITE: &str = "okay ok yeah yes yep sure well like please hey hello hi pretty just certainly definitely kind \
                       important care matter matters number no oh god interest interested free agree agreed help want \
                       true trust thanks thank good right alright";

/// What the lexicon says about a word.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Entry {
    pub weight: f64,
    pub negates: bool,
    pub greets: bool,
    pub asks: bool,
    pub polite: bool,
}

/// What the lexicon says about `word`, in lower case.
pub(super) fn look_up(word: &str) -> Entry {
    use std::collections::HashMap;
    use std::sync::LazyLock;

    static ENTRIES: LazyLock<HashMap<&'static str, Entry>> = LazyLock::new(|| {
        let mut entries: HashMap<&'static str, Entry> = HashMap::new();
        for (weight, words) in GROUPS {
            for word in words.split_whitespace() {
                entries.entry(word).or_default().weight = *weight;
            }
        }
        let mut mark = |words: &'static str, set: fn(&mut Entry)| {
            for word in words.split_whitespace() {
                set(entries.entry(word).or_default());
            }
        };
        mark(NEGATIONS, |entry| entry.negates = true);
        mark(GREETINGS, |entry| entry.greets = true);
        mark(QUESTIONS, |entry| entry.asks = true);
        mark(POLITE, |entry| entry.polite = true);
        entries
    });
    ENTRIES.get(word).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_word_has_two_weights() {
        let mut seen = HashSet::new();
        for word in GROUPS.iter().flat_map(|(_, words)| words.split_whitespace()) {
            assert!(seen.insert(word), "{word}");
        }
    }
}
