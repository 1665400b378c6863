"""Divides text into words for training, as src/llm/local/words.rs does. The word lists are read from the Rust sources, so
that there is one copy of each. The training texts have spaces between words, so this is simpler than Unicode's rules."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LOCAL = ROOT / "src/llm/local"
WORD = re.compile(r"[^\W_]+(?:['’‘.][^\W_]+)*")


def source(path):
    return (ROOT / path).read_text(encoding="utf8")


def listed(path, name):
    """The words of `static NAME: &str = "…"`."""
    text = re.search(r"static " + name + r': &str\s*=\s*"((?:[^"\\]|\\.|\\\n)*)"', source(path), re.S).group(1)
    return re.sub(r"\\\n\s*", "", text).split()


def phrases(path, name):
    """The strings of `static NAME: &[&str] = &[…]`."""
    return re.findall(r'"([^"]*)"', re.search(r"static " + name + r"[^=]*= &\[(.*?)\];", source(path), re.S).group(1))


STOPS = set(listed("src/llm/local/words.rs", "STOP_WORDS"))
NUMBERS = set(listed("src/llm/local/words.rs", "NUMBER_WORDS"))
ASKING = set(listed("src/llm/local/words.rs", "ASKING"))


def folded(word):
    word = word.lower().strip("'’‘").replace("’", "'").replace("‘", "'")
    kept, last, run = [], "", 0
    for letter in word:
        run = run + 1 if letter == last else 1
        last = letter
        if run <= 2 or not letter.isalpha():
            kept.append(letter)
    return "".join(kept)


def plain(text):
    return [word for word in map(folded, WORD.findall(text)) if word]


def stem(word):
    word = word.removesuffix("'s")
    for ending in ("ing", "ed", "es", "s", "ly"):
        if word.endswith(ending):
            return word[: -len(ending)] if len(word) - len(ending) >= 3 else word
    return word


def content(text):
    return [stem(word) for word in plain(text) if len(word) > 2 and word not in STOPS]


def is_number(word):
    return any(letter.isnumeric() for letter in word) or all(part in NUMBERS for part in word.split("-"))


def is_question(text):
    words = plain(text)
    return text.endswith(("?", "？", "؟")) or (text[-1:].isalnum() and bool(words) and words[0] in ASKING)


def holds(words, phrase):
    return f" {phrase} " in f" {' '.join(words)} "
