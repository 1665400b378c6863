//! Splits one text that arrives in pieces into the thinking before an answer and the answer.
//!
//! Knows the tags that models write, and nothing of pieces, choices or settings.

/// Opening tags, each with the marks that end the thinking; the first mark in the text counts. A mark with `false` is
/// not removed, because it begins the text that follows.
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

/// The marks of gpt-oss: the end of a message, or the beginning of the next.
const HARMONY_ENDS: &[(&str, bool)] = &[("<|end|>", true), ("<|start|>", false), ("<|channel|>", false)];

/// Marks between thinking and answer, or before an answer, that are part of neither.
const HEADS: &[&str] =
    &["<|start|>assistant", "<|channel|>final<|message|>", "<|begin_of_solution|>", "<|START_RESPONSE|>"];

/// Marks that end an answer that began with one of [`HEADS`].
const TAILS: &[&str] = &["<|return|>", "<|end|>", "<|end_of_solution|>", "<|END_RESPONSE|>"];

/// Ends of thinking whose opening tag may be in the template of the prompt: then the model never writes it.
const ORPHANS: &[&str] = &["</think>", "</thinking>", "</thought>", "</reasoning>", "[/THINK]", "◁/think▷"];

/// Maximum text that is held until it is clear if it is thinking, in bytes. No answer in JSON begins with so much
/// prose.
const MAX_HELD: usize = 1024 * 1024;

/// Maximum white space that is held, in bytes. It must be read again with each piece.
const MAX_SPACE: usize = 4096;

/// Maximum number of tags and blocks set aside before one answer; the rest is taken as the answer. Each one moves the rest
/// of the text, so without a limit the cost would be quadratic. Far more than models write.
const MAX_SET_ASIDE: u32 = 64;

/// Receives a part of the text; the flag is true if it is thinking.
pub(super) type Take<'t> = dyn FnMut(bool, &str) + 't;

/// The part of the text in which the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before any text but white space: a tag may follow.
    Start,
    /// In thinking, with the index of its tag in [`TAGS`].
    Thinking(usize),
    /// In prose that may be thinking without its opening tag, with the number of bytes already searched for an end.
    Prose(usize),
    /// In an answer that may have an end mark.
    Headed,
    /// In an answer from which nothing more is removed.
    Answer,
}

/// Splits one text.
#[derive(Debug)]
pub(super) struct Splitter {
    state: State,
    /// Set if prose is held until its end shows what it is.
    patient: bool,
    /// Text that was received, but not passed on yet.
    held: String,
    /// Set if something was removed: white space before the answer is then removed too.
    cut: bool,
    /// Number of tags and blocks set aside.
    cuts: u32,
    /// Set if there was thinking, in the open block or an earlier one.
    thought: bool,
    /// Set if a block of thinking ended: the next one begins a new paragraph.
    paragraph: bool,
    headed: bool,
    /// Set if thinking ended that had no opening tag.
    unmarked: bool,
}

impl Splitter {
    /// `patient`: text that does not look like JSON is held until it is clear if it is thinking without an opening tag.
    pub(super) fn new(patient: bool) -> Self {
        Self {
            state: State::Start,
            patient,
            held: String::new(),
            cut: false,
            cuts: 0,
            thought: false,
            paragraph: false,
            headed: false,
            unmarked: false,
        }
    }

    /// Returns true if there was thinking without an opening tag.
    pub(super) fn unmarked(&self) -> bool {
        self.unmarked
    }

    /// Treats the text as the answer, unless a tag was already found: it is passed on unchanged.
    pub(super) fn keep(&mut self) {
        if self.state == State::Start {
            self.state = State::Answer;
        }
    }

    /// Returns true if the text is thinking or is held back, for longer than a tag takes.
    pub(super) fn withholds(&self) -> bool {
        matches!(self.state, State::Thinking(_) | State::Prose(_))
    }

    /// Returns true if all further text is the answer.
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

    /// Ends the text and passes on what is held.
    pub(super) fn finish(&mut self, take: &mut Take<'_>) {
        while self.step(true, take) {}
        self.held.clear();
        self.state = State::Answer;
    }

    /// Continues as far as the current state allows. Returns true if there is more to do. `last`: no more text will
    /// come.
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
        if self.cuts == MAX_SET_ASIDE {
            self.state = State::Answer;
            return true;
        }
        let space = self.held.len() - self.held.trim_start().len();
        let text = &self.held[space..];
        if let Some(tag) = TAGS.iter().position(|(open, _)| begins(text, open)) {
            self.held.drain(..space + TAGS[tag].0.len());
            self.cuts += 1;
            self.cut = true;
            self.state = State::Thinking(tag);
            return true;
        }
        if let Some(head) = HEADS.iter().find(|head| begins(text, head)) {
            self.held.drain(..space + head.len());
            self.cuts += 1;
            (self.cut, self.headed) = (true, true);
            return true;
        }
        let opens = TAGS.iter().map(|(open, _)| open).chain(HEADS);
        if !last && space <= MAX_SPACE && (text.is_empty() || opens.into_iter().any(|open| may_begin(text, open))) {
            return false;
        }
        // White space after removed text belongs to neither part.
        if self.cut {
            self.held.drain(..space);
        }
        self.state = match () {
            () if self.headed => State::Headed,
            // A template's opening tag is at the beginning, never after other thinking.
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
        // White space at the end may be the last of the thinking, and the beginning of an end mark may follow it.
        let kept = if last { 0 } else { ends.iter().map(|(end, _)| partial(&self.held, end)).max().unwrap_or(0) };
        let open = self.held.len() - kept;
        let said = self.held[..open].trim_end().len();
        let given = if open - said > MAX_SPACE { open } else { said };
        self.give_thought(given, take);
        false
    }

    /// Passes on the first held bytes as thinking, without white space around them.
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
        // In the middle of a sentence, or after its own opening tag, the end mark is only mentioned.
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

    /// An end mark is removed only at the end of the text: before that it is an ordinary word.
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

/// Returns true if a piece of text, or one of its lines, is the end mark of thinking that was not held.
pub(super) fn passes_end(piece: &str) -> bool {
    let line = |line: &str| ORPHANS.iter().any(|end| begins(line, end) && line.len() == end.len());
    piece.contains(['>', ']', '▷']) && piece.lines().map(str::trim).any(line)
}

/// Returns true if the first character of a text begins JSON, or a code fence around it; also for an empty text.
fn looks_like_json(text: &str) -> bool {
    text.is_empty() || text.starts_with(['{', '[', '"', '`'])
}

/// Returns true if `text` begins with `tag`, ignoring ASCII case.
fn begins(text: &str, tag: &str) -> bool {
    text.as_bytes().get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag.as_bytes()))
}

/// Returns true if `text` is an incomplete beginning of `tag`, ignoring ASCII case.
fn may_begin(text: &str, tag: &str) -> bool {
    text.len() < tag.len() && tag.as_bytes()[..text.len()].eq_ignore_ascii_case(text.as_bytes())
}

/// Position of the first `tag` in `text`, ignoring ASCII case. The search for its first byte never stops inside a
/// character, because that byte occurs only at the beginning of one.
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

/// Number of bytes at the end of `text` that are the beginning of `tag`.
fn partial(text: &str, tag: &str) -> usize {
    let most = text.len().min(tag.len() - 1);
    (1..=most)
        .rev()
        .find(|length| text.is_char_boundary(text.len() - length) && may_begin(&text[text.len() - length..], tag))
        .unwrap_or(0)
}
