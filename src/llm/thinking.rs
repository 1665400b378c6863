//! Separates the answer from thinking that a model writes into its text between tags, if its server leaves it there.
//! Works on whole texts and on pieces, however they are split.
//!
//! Only text before the answer is thinking: a tag that is mentioned later is part of the answer. Knows no vendor.

mod split;

use self::split::{Splitter, passes_end};
use super::{ChatResponse, Piece};

/// What to do with thinking in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ThinkTags {
    /// Thinking is sent as reasoning, unless the vendor itself sends reasoning.
    #[default]
    Auto,
    /// Thinking stays in the text.
    Keep,
    /// Thinking is removed.
    Strip,
}

impl ThinkTags {
    /// All names in the configuration.
    pub const NAMES: [&str; 3] = ["auto", "keep", "strip"];

    /// The value with that name in the configuration.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "keep" => Some(Self::Keep),
            "strip" => Some(Self::Strip),
            _ => None,
        }
    }
}

/// The text of an answer without the thinking before it. Thinking without an opening tag is recognised by its end.
pub(crate) fn without(text: &str) -> String {
    let mut splitter = Splitter::new(true);
    let mut answer = String::new();
    let mut take = |thought: bool, part: &str| {
        if !thought {
            answer.push_str(part);
        }
    };
    splitter.feed(text, &mut take);
    splitter.finish(&mut take);
    answer
}

/// Separates the thinking in an answer. For a stream, feed it piece by piece.
#[derive(Debug)]
pub struct Thinking {
    tags: ThinkTags,
    /// Set if text that does not look like JSON is held until it is clear if it is thinking without an opening tag.
    patient: bool,
    /// Set if the end of such thinking passed by in text that was not held.
    missed: bool,
    choices: Vec<Choice>,
}

#[derive(Debug)]
struct Choice {
    index: u32,
    splitter: Splitter,
}

impl Thinking {
    /// For one answer. `patient`: the answer must be JSON, or the model is known to think without an opening tag.
    pub fn new(tags: ThinkTags, patient: bool) -> Self {
        Self { tags, patient, missed: false, choices: Vec::new() }
    }

    /// `Some(true)` if the model's thinking had no opening tag, because the template of its prompt contains it; `None`
    /// if nothing shows it.
    pub fn unmarked(&self) -> Option<bool> {
        if self.missed || self.choices.iter().any(|choice| choice.splitter.unmarked()) {
            return Some(true);
        }
        let spoke = self.choices.iter().any(|choice| choice.splitter.is_done());
        (self.patient && spoke).then_some(false)
    }

    /// Rewrites the pieces of one event. Returns true if any of them was changed or held back.
    pub fn pieces(&mut self, pieces: &mut Vec<Piece>) -> bool {
        if self.tags == ThinkTags::Keep {
            return false;
        }
        if !pieces.iter().any(|piece| self.concerns(piece)) {
            self.missed |= pieces.iter().any(|piece| matches!(piece, Piece::Text { text, .. } if passes_end(text)));
            return false;
        }
        let before = std::mem::take(pieces);
        for piece in &before {
            match piece {
                Piece::Text { choice, text } => self.text(*choice, text, pieces),
                Piece::Finish { choice, .. } | Piece::UnknownFinish { choice, .. } => {
                    self.finish(*choice, pieces);
                    pieces.push(piece.clone());
                }
                Piece::Done => {
                    self.end(pieces);
                    pieces.push(Piece::Done);
                }
                Piece::Reasoning { choice, .. } => {
                    if self.tags == ThinkTags::Auto {
                        self.splitter(*choice).keep();
                    }
                    pieces.push(piece.clone());
                }
                other => pieces.push(other.clone()),
            }
        }
        *pieces != before
    }

    /// Returns true if the model is thinking, or its text is held back, for longer than a tag takes.
    pub fn withholds(&self) -> bool {
        self.choices.iter().any(|choice| choice.splitter.withholds())
    }

    /// Appends the text that was held back, at the end of a stream.
    pub fn end(&mut self, pieces: &mut Vec<Piece>) {
        let choices: Vec<u32> = self.choices.iter().map(|choice| choice.index).collect();
        choices.into_iter().for_each(|choice| self.finish(choice, pieces));
    }

    /// Separates the thinking in a whole answer. Returns true if any of it had no opening tag.
    pub fn whole(tags: ThinkTags, answer: &mut ChatResponse) -> bool {
        let mut unmarked = false;
        for choice in &mut answer.choices {
            let reasoned = choice.reasoning.as_deref().is_some_and(|reasoning| !reasoning.is_empty());
            if tags == ThinkTags::Keep || (tags == ThinkTags::Auto && reasoned) {
                continue;
            }
            let Some(text) = choice.text.take() else { continue };
            let (mut thoughts, mut said) = (String::new(), String::new());
            let mut splitter = Splitter::new(true);
            let mut take = |thought: bool, part: &str| if thought { &mut thoughts } else { &mut said }.push_str(part);
            splitter.feed(&text, &mut take);
            splitter.finish(&mut take);
            unmarked |= splitter.unmarked();
            choice.text = Some(said);
            if tags == ThinkTags::Auto && !thoughts.is_empty() {
                choice.reasoning = Some(thoughts);
            }
        }
        unmarked
    }

    /// Returns true if a piece may be changed, or may change how others are handled.
    fn concerns(&self, piece: &Piece) -> bool {
        let busy = |choice: u32| {
            let known = self.choices.iter().find(|known| known.index == choice);
            known.is_none_or(|known| !known.splitter.is_done())
        };
        match piece {
            Piece::Text { choice, .. } | Piece::Finish { choice, .. } | Piece::UnknownFinish { choice, .. } => {
                busy(*choice)
            }
            Piece::Reasoning { choice, text } => !text.is_empty() && busy(*choice),
            Piece::Done => self.choices.iter().any(|choice| !choice.splitter.is_done()),
            _ => false,
        }
    }

    fn splitter(&mut self, index: u32) -> &mut Splitter {
        let position = match self.choices.iter().position(|choice| choice.index == index) {
            Some(position) => position,
            None => {
                self.choices.push(Choice { index, splitter: Splitter::new(self.patient) });
                self.choices.len() - 1
            }
        };
        &mut self.choices[position].splitter
    }

    fn text(&mut self, choice: u32, text: &str, out: &mut Vec<Piece>) {
        let tags = self.tags;
        self.splitter(choice).feed(text, &mut |thought, part| push(tags, choice, thought, part, out));
    }

    fn finish(&mut self, choice: u32, out: &mut Vec<Piece>) {
        let tags = self.tags;
        self.splitter(choice).finish(&mut |thought, part| push(tags, choice, thought, part, out));
    }
}

fn push(tags: ThinkTags, choice: u32, thought: bool, part: &str, out: &mut Vec<Piece>) {
    let text = part.to_owned();
    match (thought, tags) {
        (false, _) => out.push(Piece::Text { choice, text }),
        (true, ThinkTags::Strip) => {}
        (true, _) => out.push(Piece::Reasoning { choice, text }),
    }
}

#[cfg(test)]
mod tests;
