"""Trains the n-gram model of src/llm/local/ngrams.rs, which estimates whether a text is positive or negative.

It is a logistic regression over hashed 1- to 3-grams of words and punctuation, trained on GoEmotions (Reddit comments with
emotions by human raters, CC BY 4.0) and on the call-centre sentences of phrases.py. Only the difference of two classes is
stored, as one signed byte per bucket. Usage: sentiment.py FOLDER_OF_GOEMOTIONS"""

import random
import struct
import sys
from collections import Counter
from pathlib import Path

import numpy
import scipy.sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

import phrases
from words import ROOT, folded

BITS = 17
LONGEST = 3
SEED = 1
CALL_SENTENCES = 600
OUT = ROOT / "src/llm/local/ngrams.bin"

EMOTIONS = (
    "admiration amusement anger annoyance approval caring confusion curiosity desire disappointment disapproval disgust "
    "embarrassment excitement fear gratitude grief joy love nervousness optimism pride realization relief remorse sadness "
    "surprise neutral"
).split()
GLAD = set("admiration amusement approval caring desire excitement gratitude joy love optimism pride relief".split())
SORRY = set(
    "anger annoyance disappointment disapproval disgust embarrassment fear grief nervousness remorse sadness".split()
)


def label(emotions):
    """One of three classes; None if raters chose emotions of both kinds, or only a surprise, which may be either."""
    glad, sorry = any(e in GLAD for e in emotions), any(e in SORRY for e in emotions)
    if glad and sorry or (not glad and not sorry and "surprise" in emotions):
        return None
    return "positive" if glad else "negative" if sorry else "neutral"


def read(path):
    for line in path.read_text(encoding="utf8").splitlines():
        text, ids, _ = line.split("\t")
        mood = label([EMOTIONS[int(i)] for i in ids.split(",")])
        if mood and "[RELIGION]" not in text:
            yield text.replace("[NAME]", "Alex"), mood


def tokens(text):
    """Words, and punctuation that expresses feeling. The same as `tokens` in ngrams.rs."""
    found, at = [], 0
    while at < len(text):
        end = at + 1
        if text[at].isalnum():
            while end < len(text) and (
                text[end].isalnum() or (text[end] in "'’" and end + 1 < len(text) and text[end + 1].isalnum())
            ):
                end += 1
            found.append(folded(text[at:end]))
        elif text[at] in "!?":
            while end < len(text) and text[end] in "!?":
                end += 1
            marks = text[at:end]
            found.append("?!" if "?" in marks and "!" in marks else marks[0])
        elif text[at] == ".":
            while end < len(text) and text[end] == ".":
                end += 1
            if end - at > 1:
                found.append("..")
        at = end
    return found


def fnv(text, memory={}):
    """FNV-1a with 32 bits, reduced to the number of buckets."""
    if text not in memory:
        value = 0x811C9DC5
        for byte in text.encode():
            value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
        memory[text] = (value ^ (value >> BITS)) & ((1 << BITS) - 1)
    return memory[text]


def buckets(text):
    words = ["<", *tokens(text), ">"]
    found = set()
    for length in range(1, LONGEST + 1):
        for at in range(len(words) - length + 1):
            gram = words[at : at + length]
            if gram not in (["<"], [">"]):
                found.add(fnv(" ".join(gram)))
    return sorted(found)


def matrix(texts):
    rows, starts = [], [0]
    for text in texts:
        rows += buckets(text)
        starts.append(len(rows))
    counts = scipy.sparse.csr_matrix((numpy.ones(len(rows)), rows, starts), shape=(len(texts), 1 << BITS))
    return scipy.sparse.diags(1 / numpy.sqrt(numpy.maximum(1, numpy.diff(starts)))) @ counts


def main():
    folder = Path(sys.argv[1])
    train, dev = list(read(folder / "train.tsv")), list(read(folder / "dev.tsv"))
    train += phrases.moods(random.Random(SEED), CALL_SENTENCES)
    print("training texts:", dict(Counter(mood for _, mood in train)))
    model = LogisticRegression(C=1.0, max_iter=300, class_weight="balanced")
    model.fit(matrix([text for text, _ in train]), [mood for _, mood in train])
    place = {name: index for index, name in enumerate(model.classes_)}
    shown, gold = matrix([text for text, _ in dev]), [mood for _, mood in dev]
    print(f"macro-F1 of three classes on the dev split: {f1_score(gold, model.predict(shown), average='macro'):.3f}")
    weights = model.coef_[place["positive"]] - model.coef_[place["negative"]]
    bias = float(model.intercept_[place["positive"]] - model.intercept_[place["negative"]])
    scale = float(numpy.abs(weights).max() / 127)
    stored = numpy.round(weights / scale).astype(numpy.int8)
    OUT.write_bytes(struct.pack("<ff", scale, bias) + stored.tobytes())
    # Calibration of the stored weights: positive or negative, on comments for which the raters chose one of them.
    felt = [index for index, mood in enumerate(gold) if mood != "neutral"]
    odds = (shown @ (stored * numpy.float64(scale)))[felt] + bias
    chance, is_glad = 1 / (1 + numpy.exp(-odds)), numpy.array([gold[index] == "positive" for index in felt])
    bins = numpy.minimum((chance * 10).astype(int), 9)
    error = sum(abs(chance[bins == b].mean() - is_glad[bins == b].mean()) * (bins == b).mean() for b in set(bins))
    print(f"calibration error of glad against sorry: {error:.3f}; right: {((chance > 0.5) == is_glad).mean():.3f}")
    for text in ("I love it!", "This is terrible, nobody helps me.", "The card ends in 4417."):
        print(f"  {float((matrix([text]) @ (stored * numpy.float64(scale)))[0]) + bias:+.4f} {text}")


if __name__ == "__main__":
    main()
