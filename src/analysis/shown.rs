//! Settings that prompts show: the language `to` and the `questions` that are listed.
//!
//! Knows no prompt: which settings one shows, and so needs, is the analysis' to see.

use crate::base::names;
use crate::base::settings::Section;
use crate::types::id;

/// Questions of a scorecard.
const MAX_QUESTIONS: usize = 100;
/// Longest language tag, characters.
const MAX_TAG_CHARS: usize = 35;

/// A question that a prompt lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedQuestion {
    /// Names it in the answer.
    pub id: String,
    /// What is asked.
    pub text: String,
}

/// A language tag, as far as its form tells.
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

/// `questions = [{ id = "…", text = "…" }]`.
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
