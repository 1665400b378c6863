//! One text that comes in pieces, cut into the thinking before an answer and the answer.
//!
//! Knows the tags that models write, and nothing of pieces, choices or settings.

/// Opening tags, each with what ends the thinking. Of the first of several ends that come, what is marked `false` is not
/// part of the thinking's end but begins what follows.
const TAGS: &[(&str, &[(&str, bool)])] = &[
    ("<think>", &[("</think>", true)]),
    ("<thinking>", &[("</thinking>", true)]),
    ("<thought>", &[("</thought>", true)]),
    ("<reasoning>", &[("</reasoning>", true)]),
    ("<seed:think>", &[("</seed:think>", true)]),
    ("[THINK]", &[("[/THINK]", true)]),
    ("◁think▷", &[("◁/think▷", true)]),
    ("<|START_THINKING|>", &[("<|END_THINKING|>", true)]),
    ("<|begin_of_thought|>", &[("<|end_of_thought|>", true)]),
    ("<|channel|>analysis<|message|>", HARMONY_ENDS),
    ("<|channel|>commentary<|message|>", HARMONY_ENDS),
];

/// Of gpt-oss: the end of a message, or what begins the next.
const HARMONY_ENDS: &[(&str, bool)] = &[("<|end|>", true), ("<|start|>", false), ("<|channel|>", false)];

/// What stands between thinking and answer, or before an answer, and is part of neither.
const HEADS: &[&str] =
    &["<|start|>assistant", "<|channel|>final<|message|>", "<|begin_of_solution|>", "<|START_RESPONSE|>"];

/// What ends an answer that began with a head.
const TAILS: &[&str] = &["<|return|>", "<|end|>", "<|end_of_solution|>", "<|END_RESPONSE|>"];

/// Ends of thinking whose beginning the prompt's template holds: the model never writes it.
const ORPHANS: &[&str] = &["</think>", "</thinking>", "</thought>", "</reasoning>", "[/THINK]", "◁/think▷"];

/// Most text that is held until it shows whether it is thinking, bytes: no answer in JSON begins with so much prose.
const MAX_HELD: usize = 1024 * 1024;

/// Most white space that is held, bytes: it has to be read again with each piece.
const MAX_SPACE: usize = 4096;

/// Takes a part of the text: whether it is thinking, and the part itself.
pub(super) type Take<'t> = dyn FnMut(bool, &str) + 't;

/// Where in the text we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before anything but white space: a tag may come.
    Start,
    /// In thinking, by its tag's place in [`TAGS`].
    Thinking(usize),
    /// In prose that may be thinking without its opening tag. How much of it was searched for an end.
    Prose(usize),
    /// In an answer whose end may be marked.
    Headed,
    /// In an answer that has nothing more to set aside.
    Answer,
}

/// Cuts one text.
#[derive(Debug)]
pub(super) struct Splitter {
    state: State,
    /// Whether prose is held until its end shows what it is.
    patient: bool,
    /// What came and is not given out yet.
    held: String,
    /// Something was set aside: white space before the answer goes with it.
    cut: bool,
    /// Something was thought, in the block that is open or one before it.
    thought: bool,
    /// A block of thinking ended: the next one begins a new paragraph.
    paragraph: bool,
    headed: bool,
    /// Thinking ended that had no opening tag.
    unmarked: bool,
}

impl Splitter {
    /// `patient`: text that does not look like JSON is held until it shows whether it was thinking without an opening tag.
    pub(super) fn new(patient: bool) -> Self {
        Self {
            state: State::Start,
            patient,
            held: String::new(),
            cut: false,
            thought: false,
            paragraph: false,
            headed: false,
            unmarked: false,
        }
    }

    /// Whether there was thinking without an opening tag.
    pub(super) fn unmarked(&self) -> bool {
        self.unmarked
    }

    /// The answer has begun, or is all that there is: what comes goes on as it is.
    pub(super) fn keep(&mut self) {
        if self.state == State::Start {
            self.state = State::Answer;
        }
    }

    /// Whether text is held back, or would be thought, for longer than a tag takes.
    pub(super) fn withholds(&self) -> bool {
        matches!(self.state, State::Thinking(_) | State::Prose(_))
    }

    /// Whether all that comes now is the answer.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Answer && self.held.is_empty()
    }

    /// Takes more of the text.
    pub(super) fn feed(&mut self, text: &str, take: &mut Take<'_>) {
        if self.is_done() {
            if !text.is_empty() {
                take(false, text);
            }
            return;
        }
        self.held.push_str(text);
        while self.step(false, take) {}
    }

    /// The text is over.
    pub(super) fn finish(&mut self, take: &mut Take<'_>) {
        while self.step(true, take) {}
        self.held.clear();
        self.state = State::Answer;
    }

    /// Goes on as far as one state leads; whether there is more to do. `last`: nothing more comes.
    fn step(&mut self, last: bool, take: &mut Take<'_>) -> bool {
        if self.held.is_empty() {
            return false;
        }
        match self.state {
            State::Start => self.start(last, take),
            State::Thinking(tag) => self.think(TAGS[tag].1, last, take),
            State::Prose(searched) => self.prose(searched, last, take),
            State::Headed => self.headed(last, take),
            State::Answer => {
                take(false, &self.held);
                self.held.clear();
                false
            }
        }
    }

    fn start(&mut self, last: bool, take: &mut Take<'_>) -> bool {
        let space = self.held.len() - self.held.trim_start().len();
        let text = &self.held[space..];
        if let Some(tag) = TAGS.iter().position(|(open, _)| begins(text, open)) {
            self.held.drain(..space + TAGS[tag].0.len());
            self.cut = true;
            self.state = State::Thinking(tag);
            return true;
        }
        if let Some(head) = HEADS.iter().find(|head| begins(text, head)) {
            self.held.drain(..space + head.len());
            (self.cut, self.headed) = (true, true);
            return true;
        }
        let opens = TAGS.iter().map(|(open, _)| open).chain(HEADS);
        if !last && space <= MAX_SPACE && (text.is_empty() || opens.into_iter().any(|open| may_begin(text, open))) {
            return false;
        }
        // Behind what was set aside, white space belongs to neither.
        if self.cut {
            self.held.drain(..space);
        }
        self.state = match () {
            () if self.headed => State::Headed,
            // A template's opening tag stands at the beginning: never behind other thinking.
            () if self.patient && !self.cut && !looks_like_json(self.held.trim_start()) => State::Prose(0),
            () => State::Answer,
        };
        self.step(last, take)
    }

    fn think(&mut self, ends: &[(&str, bool)], last: bool, take: &mut Take<'_>) -> bool {
        let found = ends.iter().filter_map(|(end, own)| Some((find(&self.held, end)?, end.len(), *own))).min();
        if let Some((at, length, own)) = found {
            self.give_thought(at, take);
            self.held.drain(..if own { length } else { 0 });
            self.paragraph = self.thought;
            self.state = State::Start;
            return true;
        }
        // White space at the end may be the thinking's last, and the beginning of an end may follow it.
        let kept = if last { 0 } else { ends.iter().map(|(end, _)| partial(&self.held, end)).max().unwrap_or(0) };
        let open = self.held.len() - kept;
        let said = self.held[..open].trim_end().len();
        let given = if open - said > MAX_SPACE { open } else { said };
        self.give_thought(given, take);
        false
    }

    /// Gives out the first bytes held as thinking, without white space around it.
    fn give_thought(&mut self, bytes: usize, take: &mut Take<'_>) {
        let part = &self.held[..bytes];
        let begins = !self.thought || self.paragraph;
        let part = if begins { part.trim_start() } else { part };
        let part = part.trim_end();
        if !part.is_empty() {
            if self.paragraph {
                take(true, "\n\n");
            }
            take(true, part);
            (self.thought, self.paragraph) = (true, false);
        }
        self.held.drain(..bytes);
    }

    fn prose(&mut self, searched: usize, last: bool, take: &mut Take<'_>) -> bool {
        let longest = ORPHANS.iter().map(|end| end.len()).max().unwrap_or(0);
        let mut from = searched.saturating_sub(longest);
        while !self.held.is_char_boundary(from) {
            from -= 1;
        }
        let found = ORPHANS.iter().filter_map(|end| Some((from + find(&self.held[from..], end)?, end.len()))).min();
        let Some((at, length)) = found else {
            self.state = State::Prose(self.held.len());
            return self.give_up(last, take);
        };
        let behind = self.held[at + length..].trim_start_matches([' ', '\t', '\r']);
        if behind.is_empty() && !last {
            self.state = State::Prose(at);
            return false;
        }
        // In the middle of a sentence, or behind its own opening tag, it is mentioned only.
        let ends = behind.is_empty() || behind.starts_with('\n') || looks_like_json(behind);
        let opened = TAGS.iter().any(|(open, _)| find(&self.held[..at], open).is_some());
        if !ends || opened {
            self.state = State::Answer;
            return true;
        }
        self.give_thought(at, take);
        self.held.drain(..length);
        (self.cut, self.unmarked, self.paragraph) = (true, true, self.thought);
        self.state = State::Start;
        true
    }

    fn give_up(&mut self, last: bool, take: &mut Take<'_>) -> bool {
        if !last && self.held.len() <= MAX_HELD {
            return false;
        }
        self.state = State::Answer;
        self.step(last, take)
    }

    /// What ends the answer is left out at the end of the text only: further on it would be a word like others.
    fn headed(&mut self, last: bool, take: &mut Take<'_>) -> bool {
        let begun = if last { 0 } else { TAILS.iter().map(|tail| partial(&self.held, tail)).max().unwrap_or(0) };
        let mut end = self.held.len() - begun;
        while let Some(rest) = TAILS.iter().find_map(|tail| without_end(self.held[..end].trim_end(), tail)) {
            end = rest;
        }
        let rest = self.held.split_off(end);
        if !self.held.is_empty() {
            take(false, &self.held);
        }
        self.held = if last { String::new() } else { rest };
        false
    }
}

/// The length of `text` without `tag` at its end, if it ends with it.
fn without_end(text: &str, tag: &str) -> Option<usize> {
    let at = text.len().checked_sub(tag.len()).filter(|at| text.is_char_boundary(*at))?;
    begins(&text[at..], tag).then_some(at)
}

/// Whether a piece of a text is, or has in a line of its own, the end of thinking that was not held.
pub(super) fn passes_end(piece: &str) -> bool {
    let line = |line: &str| ORPHANS.iter().any(|end| begins(line, end) && line.len() == end.len());
    piece.contains(['>', ']', '▷']) && piece.lines().map(str::trim).any(line)
}

/// Whether a text is JSON as far as its first character tells, or a fence around it.
fn looks_like_json(text: &str) -> bool {
    text.is_empty() || text.starts_with(['{', '[', '"', '`'])
}

/// Whether `text` begins with `tag`, in capitals or not.
fn begins(text: &str, tag: &str) -> bool {
    text.as_bytes().get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag.as_bytes()))
}

/// Whether `text` is the beginning of `tag` and ends in its middle.
fn may_begin(text: &str, tag: &str) -> bool {
    text.len() < tag.len() && tag.as_bytes()[..text.len()].eq_ignore_ascii_case(text.as_bytes())
}

/// Where `tag` stands first in `text`, in capitals or not. A tag is found at its first byte, which no other character of
/// UTF-8 has in its middle.
fn find(text: &str, tag: &str) -> Option<usize> {
    let first = tag.as_bytes()[0];
    let bytes = text.as_bytes();
    let mut from = 0;
    loop {
        let at = from + bytes[from..].iter().position(|byte| *byte == first)?;
        if begins(&text[at..], tag) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// How many bytes at the end of `text` are the beginning of `tag`.
fn partial(text: &str, tag: &str) -> usize {
    let most = text.len().min(tag.len() - 1);
    (1..=most)
        .rev()
        .find(|length| text.is_char_boundary(text.len() - length) && may_begin(&text[text.len() - length..], tag))
        .unwrap_or(0)
}
