//! Settings that prompts can show: the language `to` and the listed `questions`.
//!
//! Knows no prompt: the analysis checks which settings its prompts use.

use crate::base::names;
use crate::base::settings::Section;
use crate::types::id;

/// Maximum number of questions of a scorecard.
const MAX_QUESTIONS: usize = 100;
/// Longest language tag, characters.
const MAX_TAG_CHARS: usize = 35;

/// A question that a prompt lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedQuestion {
    /// Identifies the question in the answer.
    pub id: String,
    /// The question.
    pub text: String,
}

/// Reads a language tag; checks only its form.
pub(super) fn read_tag(section: &mut Section<'_>) -> Option<String> {
    let tag = section.string("to")?;
    let part = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let sound = tag.len() <= MAX_TAG_CHARS
        && tag.split('-').all(part)
        && tag.starts_with(|letter: char| letter.is_ascii_alphabetic());
    if !sound {
        section.problem(
            "to",
            format!("expected a language tag such as \"es\" or \"pt-BR\", found {}", names::shown(&tag)),
        );
    }
    sound.then_some(tag)
}

/// Reads `questions = [{ id = "…", text = "…" }]`.
pub(super) fn read_questions(section: &mut Section<'_>) -> Option<Vec<ListedQuestion>> {
    let tables = section.tables("questions")?;
    if tables.is_empty() || tables.len() > MAX_QUESTIONS {
        section.problem("questions", format!("expected 1 to {MAX_QUESTIONS} questions, found {}", tables.len()));
    }
    let mut questions: Vec<ListedQuestion> = Vec::new();
    for (path, table) in tables {
        let mut table = Section::new(path, Some(table), section.problems());
        for key in ["id", "text"] {
            if !table.has(key) {
                table.problem(key, "missing; a question has an id and a text");
            }
        }
        let (id, text) = (table.string("id"), table.string("text"));
        if let Some(Err(error)) = id.as_deref().map(id::check) {
            table.problem("id", error.to_string());
        }
        if let Some(id) = id.as_ref().filter(|id| questions.iter().any(|known| known.id == **id)) {
            table.problem("id", format!("{} is the id of an earlier question", names::shown(id)));
        }
        table.finish();
        questions.extend(id.zip(text).map(|(id, text)| ListedQuestion { id, text }));
    }
    Some(questions)
}
