//! Reads Markdown: the parser's settings, the anchors of headings, and the targets of links. The only module that
//! configures `pulldown-cmark`, from whose events pages are rendered.
//!
//! Knows no output format.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::topics::{SIDETONE_TOML_NAME, topic};

/// The events of a page.
pub(super) fn events(text: &str) -> Parser<'_> {
    Parser::new_ext(text, Options::ENABLE_TABLES)
}

/// The target of a link.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// A heading of the same page.
    Here(&'a str),
    /// A page of the documentation: its name, and optionally one of its headings.
    Topic(&'a str, Option<&'a str>),
    /// `config/sidetone.toml`.
    Configuration,
    /// A picture beside the pages.
    Picture(&'a str),
    /// A URL of another server.
    Outside(&'a str),
    /// A file that is not part of the documentation.
    Unknown(&'a str),
}

/// The target of the link `url` of a page. Pages are files of one folder, so that the links also work in a file viewer.
pub(super) fn target(url: &str) -> Target<'_> {
    if let Some(heading) = url.strip_prefix('#') {
        return Target::Here(heading);
    }
    if url.starts_with("https://") || url.starts_with("http://") {
        return Target::Outside(url);
    }
    let (file, heading) = url.split_once('#').map_or((url, None), |(file, heading)| (file, Some(heading)));
    if file.strip_prefix("../../config/") == Some(SIDETONE_TOML_NAME) {
        return Target::Configuration;
    }
    if url.ends_with(".png") && !url.contains('/') {
        return Target::Picture(url);
    }
    match file.strip_suffix(".md").filter(|name| topic(name).is_some()) {
        Some(name) => Target::Topic(name, heading),
        None => Target::Unknown(url),
    }
}

/// The anchor of a heading, in the form that rustdoc and repository hosts use.
pub(super) fn slug(heading: &str) -> String {
    heading
        .chars()
        .filter_map(|character| match character {
            ' ' => Some('-'),
            '-' | '_' => Some(character),
            _ => character.is_alphanumeric().then(|| character.to_ascii_lowercase()),
        })
        .collect()
}

/// The headings of a page: level, text and anchor.
pub(super) fn headings(text: &str) -> Vec<(u8, String, String)> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for event in events(text) {
        match event {
            Event::Start(Tag::Heading { .. }) => open = Some(String::new()),
            Event::End(TagEnd::Heading(level)) => {
                if let Some(text) = open.take() {
                    let anchor = slug(&text);
                    found.push((level as u8, text, anchor));
                }
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(open) = &mut open {
                    open.push_str(&text);
                }
            }
            _ => {}
        }
    }
    found
}
