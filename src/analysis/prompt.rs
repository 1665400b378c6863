//! One version of an analysis' prompt: a template file, checked when it is read. It has either messages, one of which
//! contains the transcript, or only instructions, which are used in the layout that all analyses share.
//!
//! Knows no text of a transcript: the template is rendered with a mark in place of the transcript, and the parts of a
//! snapshot, shared and not copied, replace the mark. Inserted text is never read as a template.

mod check;
mod variables;

use std::fmt;
use std::sync::Arc;

use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use sha2::{Digest as _, Sha256};

use super::folder::{Fault, version_of};
use super::{Facts, ListedQuestion, Scope, layout, position};
use crate::base::budget::{Bound, Exceeded, TOO_COMPLEX};
use crate::context::Snapshot;
use crate::llm::{Message, Role, Text};
use crate::types::JsonMap;

/// Maximum cost of rendering one message, in the template engine's unit: one instruction, or 64 bytes of text. The
/// transcript's lines are not rendered by the engine and do not count.
const TEMPLATE_FUEL: Bound = Bound::new("template_fuel", 100_000);

/// Stands for the transcript while a template is rendered. Escaping keeps its characters out of all other text.
const MARK: &str = "\u{fdd0}transcript\u{fdd1}";

/// Settings that a prompt can use.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shown<'a> {
    /// The language of a translation, a BCP 47 tag.
    pub(super) to: Option<&'a str>,
    /// The questions of a scorecard.
    pub(super) questions: &'a [ListedQuestion],
}

/// One version of a prompt.
pub struct Prompt {
    /// `v1`, …: the file's name without its extension.
    pub version: Arc<str>,
    /// First 8 hex digits of the SHA-256 of the template and the schema.
    pub hash8: Arc<str>,
    /// `analysis/version@hash8`, as in an insight's provenance.
    pub id: Arc<str>,
    kind: Kind,
    /// Set if the messages contain the transcript (always, if the analysis is rolling).
    has_transcript: bool,
    /// Set if the text before the transcript is the same in every prompt of a call.
    stable: bool,
    roles: Vec<Role>,
    /// Messages without variables, rendered once.
    fixed: Vec<Option<Text>>,
    /// One template for each message, named by its position.
    templates: Environment<'static>,
}

/// The form of a template file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Messages, with the transcript in one of them.
    Messages,
    /// One text that contains the question.
    Instructions,
}

impl fmt::Debug for Prompt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Prompt({})", self.id)
    }
}

/// Why a template could not be rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenderErrorKind {
    /// The template does not fit the call.
    BadPrompt,
    /// Rendering is over its limit.
    TooComplex,
}

/// A template that could not be rendered for one call, although it could when it was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("prompt {id} cannot be rendered: {message}")]
pub struct RenderError {
    /// The prompt.
    pub id: Arc<str>,
    pub kind: RenderErrorKind,
    /// What went wrong, and where. Contains nothing of the call.
    pub message: String,
}

impl Prompt {
    /// Reads the template file `file` of the analysis `name`.
    ///
    /// # Errors
    /// What is wrong with it, with line and column.
    pub(super) fn read(name: &str, file: &str, source: &str, schema: &str, scope: Scope) -> Result<Self, Fault> {
        let version = version_of(file).ok_or_else(|| Fault::whole(file, "expected a name such as v1.j2"))?;
        if let Some(at) = source.find(['\u{fdd0}', '\u{fdd1}']) {
            return Err(Fault::at(file, source, at, "noncharacters are not allowed"));
        }
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Chainable);
        templates.set_fuel(Some(TEMPLATE_FUEL.most));
        let (kind, sections) = sections(file, source, scope)?;
        let mut roles = Vec::new();
        for (role, start, text) in sections {
            // The lines before it are replaced by empty ones, so that errors have the line numbers of the file.
            let padded = format!("{}{text}", "\n".repeat(source[..start].matches('\n').count()));
            templates
                .add_template_owned(roles.len().to_string(), padded.clone())
                .map_err(|error| fault(file, &padded, &error))?;
            check::variables(file, &padded, &templates, roles.len(), scope)?;
            roles.push(role);
        }
        let shared = if kind == Kind::Instructions { layout::SYSTEM } else { "" };
        let digest = Sha256::digest(format!("{source}\0{schema}\0{shared}").as_bytes());
        let hash8 = hex::encode(&digest[..4]);
        let mut prompt = Self {
            version: version.into(),
            id: format!("{name}/{version}@{hash8}").into(),
            hash8: hash8.into(),
            kind,
            has_transcript: false,
            stable: false,
            fixed: vec![None; roles.len()],
            roles,
            templates,
        };
        prompt.try_out(file, scope)?;
        Ok(prompt)
    }

    /// Returns true if the prompt uses the layout that all analyses share, so that several can be asked at once.
    pub fn bundles(&self) -> bool {
        self.kind == Kind::Instructions
    }

    /// The question, for one job.
    ///
    /// # Errors
    /// The template fails with the facts of this call (such as its `meta`), or the prompt has messages.
    pub(super) fn instructions(
        &self,
        snapshot: &Snapshot,
        facts: &Facts,
        settings: Shown<'_>,
    ) -> Result<String, RenderError> {
        if self.kind != Kind::Instructions {
            return Err(
                self.wrong(RenderErrorKind::BadPrompt, "it has messages of its own, so it is asked alone".to_owned())
            );
        }
        if let Some(text) = self.fixed.first().and_then(Option::as_ref) {
            return Ok(text.to_string());
        }
        Ok(self.render(0, &variables::of(snapshot, facts, settings))?.trim().to_owned())
    }

    /// The messages, for one job.
    ///
    /// # Errors
    /// The template fails with the facts of this call (such as its `meta`).
    pub(super) fn messages(
        &self,
        snapshot: &Snapshot,
        facts: &Facts,
        settings: Shown<'_>,
    ) -> Result<Vec<Message>, RenderError> {
        let mut variables: Option<Value> = None;
        let mut seen = 0;
        let mut out = Vec::with_capacity(self.roles.len());
        for (index, role) in self.roles.iter().enumerate() {
            if let Some(text) = &self.fixed[index] {
                out.push(Message::text(*role, text.clone()));
                continue;
            }
            let variables = variables.get_or_insert_with(|| variables::of(snapshot, facts, settings));
            let rendered = self.render(index, variables)?;
            let rendered = rendered.trim();
            seen += rendered.matches(MARK).count();
            out.push(match rendered.split_once(MARK) {
                Some((before, after)) => {
                    let content = layout::content(before, snapshot, after, self.stable);
                    Message { role: *role, content, ..Message::default() }
                }
                None => Message::text(*role, rendered),
            });
        }
        if seen != usize::from(self.has_transcript) {
            return Err(self.wrong(RenderErrorKind::BadPrompt, format!("the transcript occurred {seen} times in it")));
        }
        Ok(out)
    }

    fn render(&self, index: usize, variables: &Value) -> Result<String, RenderError> {
        let template = self.templates.get_template(&index.to_string());
        template.and_then(|template| template.render(variables.clone())).map_err(|error| {
            let is_over = is_out_of_fuel(&error);
            let kind = if is_over { RenderErrorKind::TooComplex } else { RenderErrorKind::BadPrompt };
            self.wrong(kind, brief(&error))
        })
    }

    fn wrong(&self, kind: RenderErrorKind, message: String) -> RenderError {
        RenderError { id: Arc::clone(&self.id), kind, message }
    }

    /// Its templates, one for each message.
    pub(super) fn sources(&self) -> impl Iterator<Item = String> {
        self.templates.templates().map(|(_, template)| template.source().to_owned())
    }

    /// Returns true if the prompt uses the variable `name` anywhere.
    pub(super) fn shows(&self, name: &str) -> bool {
        self.templates.templates().any(|(_, template)| template.undeclared_variables(false).contains(name))
    }

    /// Renders with made-up facts: finds unknown filters, and counts how often the transcript is used.
    fn try_out(&mut self, file: &str, scope: Scope) -> Result<(), Fault> {
        let mut meta = JsonMap::new();
        let mut counts = Vec::new();
        for with_meta in [false, true] {
            if with_meta {
                meta.insert("agent".to_owned(), "Ada".into());
            }
            let variables = variables::sample(scope, &meta);
            let mut count = 0;
            for index in 0..self.roles.len() {
                let template = self.templates.get_template(&index.to_string());
                let template = template.map_err(|error| Fault::whole(file, brief(&error)))?;
                let rendered =
                    template.render(variables.clone()).map_err(|error| fault(file, template.source(), &error))?;
                count += rendered.matches(MARK).count();
                if template.undeclared_variables(false).is_empty() {
                    self.fixed[index] = Some(Text::from(rendered.trim()));
                }
            }
            counts.push(count);
        }
        check::undefined(file, &self.templates, scope)?;
        let (allowed, what) = match (self.kind, scope) {
            (Kind::Instructions, _) => (0..=0, "be left out of instructions: the layout shows it before them"),
            (Kind::Messages, Scope::Rolling | Scope::End) => {
                (1..=1, "be in it exactly once, by itself and for every call")
            }
            (Kind::Messages, Scope::Turn) => (0..=1, "be in it at most once, by itself and for every call"),
        };
        let count = counts[1];
        if counts[0] != count || !allowed.contains(&count) {
            let whole: String =
                self.templates.templates().map(|(_, template)| template.source().to_owned()).max().unwrap_or_default();
            let message = format!("{{{{ transcript }}}} must {what}; it is there {count} times");
            return Err(match position::variable(&whole, "transcript") {
                Some(at) => Fault::at(file, &whole, at, message),
                None => Fault { file: file.to_owned(), at: Some((1, 1)), message },
            });
        }
        self.has_transcript = count == 1;
        self.stable = self.is_stable();
        Ok(())
    }

    /// Returns true if the templates show that the text before the transcript is the same in all prompts of a call.
    fn is_stable(&self) -> bool {
        for index in 0..self.roles.len() {
            let Ok(template) = self.templates.get_template(&index.to_string()) else { return false };
            let source = template.source();
            let named = position::variable(source, "transcript");
            let shown = named.and_then(|at| source[..at].trim_end().trim_end_matches('-').strip_suffix("{{"));
            if named.is_some() != shown.is_some() {
                return false;
            }
            let alone = Environment::new();
            // The transcript is inside of a block, so the text before it is not a complete template.
            let Ok(before) = alone.template_from_str(shown.unwrap_or(source)) else { return false };
            let volatile = |name: &String| variables::VOLATILE.contains(&name.as_str());
            if before.undeclared_variables(false).iter().any(volatile) {
                return false;
            }
            if shown.is_some() {
                return true;
            }
        }
        false
    }
}

/// A section of a template file: role, byte offset, text.
type Section<'a> = (Role, usize, &'a str);

/// The sections of a template file. Without any `=== role ===` line, the whole file is the user's message.
fn sections<'a>(file: &str, source: &'a str, scope: Scope) -> Result<(Kind, Vec<Section<'a>>), Fault> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut begun: Option<(Role, usize)> = None;
    let mut instructions: Option<usize> = None;
    let mut offset = 0;
    for line in source.split_inclusive('\n') {
        let heading = line.trim().strip_prefix("===").and_then(|rest| rest.strip_suffix("===")).map(str::trim);
        if let Some(heading) = heading {
            let role = match heading {
                "system" => Role::System,
                "user" => Role::User,
                "assistant" => Role::Assistant,
                "instructions" => {
                    instructions = Some(offset);
                    Role::User
                }
                _ => {
                    let message = format!(
                        "expected === instructions ===, === system ===, === user === or === assistant ===, found {:?}",
                        line.trim()
                    );
                    return Err(Fault::at(file, source, offset, message));
                }
            };
            match begun {
                Some((role, start)) => sections.push((role, start, &source[start..offset])),
                None if source[..offset].trim().is_empty() => {}
                None => return Err(Fault::at(file, source, 0, "text before the first === role === line")),
            }
            begun = Some((role, offset + line.len()));
        }
        offset += line.len();
    }
    let (role, start) = begun.unwrap_or((Role::User, 0));
    sections.push((role, start, &source[start..]));
    if let Some((_, start, _)) = sections.iter().find(|(_, _, text)| text.trim().is_empty()) {
        return Err(Fault::at(file, source, start.saturating_sub(1), "the section is empty"));
    }
    if let Some(at) = instructions {
        if scope == Scope::Turn {
            let message = "=== instructions === is for rolling analyses; a per-turn prompt has messages";
            return Err(Fault::at(file, source, at, message));
        }
        if sections.len() > 1 {
            let message = "=== instructions === must be the only section: the layout gives the messages around it";
            return Err(Fault::at(file, source, at, message));
        }
        return Ok((Kind::Instructions, sections));
    }
    if sections.iter().all(|(role, _, _)| *role != Role::User) {
        return Err(Fault::at(file, source, 0, "there is no === user === message"));
    }
    Ok((Kind::Messages, sections))
}

fn fault(file: &str, source: &str, error: &minijinja::Error) -> Fault {
    match (error.range(), error.line()) {
        (Some(range), _) => Fault::at(file, source, range.start, brief(error)),
        (None, Some(line)) => Fault { file: file.to_owned(), at: Some((line, 1)), message: brief(error) },
        (None, None) => Fault::whole(file, brief(error)),
    }
}

fn is_out_of_fuel(error: &minijinja::Error) -> bool {
    error.kind() == ErrorKind::OutOfFuel
}

/// The error's message, without the template's text around the place.
fn brief(error: &minijinja::Error) -> String {
    if is_out_of_fuel(error) {
        return format!("{TOO_COMPLEX}: rendering is {}", Exceeded::Limit(TEMPLATE_FUEL));
    }
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

#[cfg(test)]
mod tests;
