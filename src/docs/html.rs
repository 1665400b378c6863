//! Renders pages as HTML: complete documents that run nothing and load only the pictures beside them.
//!
//! Knows no path of the server: links between pages are relative.

use pulldown_cmark::{CowStr, Event, Tag, TagEnd, html};

use super::markdown::{Target, events, headings, target};
use super::topics::{SIDETONE_TOML_NAME, TOPICS, Topic, picture};

/// The frame around each page. Its three marks are replaced in the order of [`fill`].
const FRAME: &str = include_str!("page.html");

pub fn page(topic: &Topic) -> String {
    let chapters = headings(topic.text).into_iter().filter(|(level, ..)| *level == 2);
    let chapters: String =
        chapters.map(|(_, text, anchor)| format!("<li><a href=\"#{anchor}\">{}</a></li>", escaped(&text))).collect();
    fill(topic.name, &navigation(topic.name, &chapters), &body(topic.text))
}

/// The list of all topics.
pub fn index() -> String {
    let mut text = "# Sidetone\n\nEvery page is also printed by `sidetone help TOPIC`.\n\n".to_owned();
    for topic in TOPICS {
        text.push_str(&format!("* [{}]({}.md): {}\n", topic.name, topic.name, topic.summary));
    }
    text.push_str("* [sidetone.toml](../../config/sidetone.toml): every key of the configuration with its default\n");
    fill("documentation", &navigation("", ""), &body(&text))
}

/// Links to all pages; below the current one, links to its chapters.
fn navigation(shown: &str, chapters: &str) -> String {
    let mut out = String::from("<ul>");
    for Topic { name, .. } in TOPICS {
        let here = if *name == shown { " aria-current=\"page\"" } else { "" };
        let below = if *name == shown { format!("<ul>{chapters}</ul>") } else { String::new() };
        out.push_str(&format!("<li><a href=\"{name}\"{here}>{name}</a>{below}</li>"));
    }
    out.push_str(&format!("<li><a href=\"{SIDETONE_TOML_NAME}\">{SIDETONE_TOML_NAME}</a></li></ul>"));
    out
}

/// The content of a page, with an anchor at each heading.
fn body(text: &str) -> String {
    let mut anchors = headings(text).into_iter().map(|(_, _, anchor)| anchor);
    let mut shows_picture = true;
    let events = events(text).map(|event| match event {
        Event::Start(Tag::Heading { level, classes, attrs, .. }) => {
            Event::Start(Tag::Heading { level, id: anchors.next().map(CowStr::from), classes, attrs })
        }
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            let dest_url = reference(&dest_url).map_or(dest_url, CowStr::from);
            Event::Start(Tag::Link { link_type, dest_url, title, id })
        }
        // Any other picture would be loaded from elsewhere, so its text is shown.
        Event::Start(Tag::Image { ref dest_url, .. }) if picture(dest_url).is_none() => {
            shows_picture = false;
            Event::Start(Tag::Emphasis)
        }
        Event::End(TagEnd::Image) if !std::mem::replace(&mut shows_picture, true) => Event::End(TagEnd::Emphasis),
        // Pages contain no HTML of their own, so it is shown as text.
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        other => other,
    });
    let mut out = String::with_capacity(text.len() * 2);
    html::push_html(&mut out, events);
    out
}

/// The link in the form of the served pages; `None` if it is unchanged.
fn reference(url: &str) -> Option<String> {
    match target(url) {
        Target::Topic(name, None) => Some(name.to_owned()),
        Target::Topic(name, Some(heading)) => Some(format!("{name}#{heading}")),
        Target::Configuration => Some(SIDETONE_TOML_NAME.to_owned()),
        Target::Here(_) | Target::Picture(_) | Target::Outside(_) | Target::Unknown(_) => None,
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Inserts title, navigation and content into the frame.
fn fill(title: &str, navigation: &str, body: &str) -> String {
    let mut out = String::with_capacity(FRAME.len() + navigation.len() + body.len());
    let mut rest = FRAME;
    for (mark, text) in [("<!--title-->", title), ("<!--navigation-->", navigation), ("<!--body-->", body)] {
        let (before, after) = rest.split_once(mark).unwrap_or((rest, ""));
        out.push_str(before);
        out.push_str(text);
        rest = after;
    }
    out.push_str(rest);
    out
}
