"""Trains the gate of src/analysis/gate, which decides whether a turn counts as new. It is a logistic regression over a few
features, trained on turns that phrases.py makes. Prints its results on other turns, and writes weights.rs.

The features are those of src/analysis/gate/features.rs, in that order."""

import random

import numpy
from sklearn.linear_model import LogisticRegression

import phrases
from words import ROOT, content, holds, is_number, is_question, listed, plain
from words import phrases as strings

LISTS = "src/analysis/gate/lists.rs"
OUT = ROOT / "src/analysis/gate/weights.rs"
SEED = 7
COUNT = 4000
# Maximum share of the turns that change something which the gate may ignore.
MISSED = 0.004

ASSENT, DENIAL, ACTING = (set(listed(LISTS, name)) for name in ("ASSENT", "DENIAL", "ACTING"))
COURTESY = [phrase.split() for phrase in strings(LISTS, "COURTESY")]
CLOSING = strings(LISTS, "CLOSING")
NAMES = (
    "words new_words said_words new_numbers said_numbers asks answers courtesy assent denial acting bare"
).split()


def courteous(words):
    """The words that belong to polite phrases."""
    marked = [False] * len(words)
    for phrase in COURTESY:
        for at in range(len(words) - len(phrase) + 1):
            if words[at : at + len(phrase)] == phrase:
                marked[at : at + len(phrase)] = [True] * len(phrase)
    return marked


def features(before, text):
    words = plain(text)
    marked = courteous(words)
    own = [word for word, polite in zip(words, marked) if not polite and word not in ASSENT]
    known, numbers = set(), set()
    for earlier in before:
        known.update(content(earlier))
        numbers.update(word for word in plain(earlier) if is_number(word))
    stems = content(" ".join(own))
    said = sum(1 for stem in stems if stem in known)
    digits = [word for word in own if is_number(word)]
    repeated = sum(1 for word in digits if word in numbers)
    asked = bool(before) and is_question(before[-1]) and not any(holds(plain(before[-1]), phrase) for phrase in CLOSING)
    count = max(1, len(words))
    return [
        min(len(words), 12) / 12,
        min(len(stems) - said, 4),
        min(said, 4),
        min(len(digits) - repeated, 2),
        min(repeated, 2),
        float(bool(own) and is_question(text.strip())),
        float(asked),
        sum(marked) / count,
        sum(1 for word, polite in zip(words, marked) if not polite and word in ASSENT) / count,
        float(any(word in DENIAL for word in own)),
        float(any(word in ACTING for word in own)),
        float(bool(own) and not stems and not digits),
    ]


def main():
    made = list(phrases.turns(random.Random(SEED), COUNT))
    inputs = numpy.array([features(before, text) for before, text, _ in made])
    idle = numpy.array([not news for _, _, news in made])
    half = COUNT * 2 // 3
    model = LogisticRegression(C=3.0, max_iter=1000).fit(inputs[:half], idle[:half])
    scores = model.decision_function(inputs)
    # The threshold is set on the turns of the training.
    cut = float(numpy.quantile(scores[:half][~idle[:half]], 1 - MISSED))
    passed, kept_out = scores > cut, slice(half, None)
    print(f"turns that were kept out: {COUNT - half}")
    print(f"  of those that change nothing, passed over: {passed[kept_out][idle[kept_out]].mean():.3f}")
    print(f"  of those that change something, passed over: {passed[kept_out][~idle[kept_out]].mean():.4f}")
    lines = "".join(f"    // {name}\n    {weight:.4f},\n" for name, weight in zip(NAMES, model.coef_[0]))
    OUT.write_text(
        "//! Weights of the gate, written by `scripts/train-local`.\n\n"
        "/// One for each feature, in their order.\n"
        f"pub(super) const WEIGHTS: [f32; {len(NAMES)}] = [\n{lines}];\n"
        "/// A turn whose weighted sum is above this is passed over.\n"
        f"pub(super) const CUT: f32 = {cut - float(model.intercept_[0]):.4f};\n",
        encoding="utf8",
    )
    return made, inputs, idle, passed


if __name__ == "__main__":
    main()
