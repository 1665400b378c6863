//! The pages: their links, their tables and both renderings.

use std::collections::BTreeSet;
use std::path::Path;

use pulldown_cmark::{CodeBlockKind, Event, Tag};

use super::markdown::{Target, events, headings, target};
use super::*;

const README: &str = include_str!("../../README.md");
const RUSTDOC_LINKS: &str = include_str!("rustdoc-links.txt");

/// The text without colours.
fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

fn links(text: &str) -> Vec<String> {
    let link = |event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.to_string()),
        _ => None,
    };
    events(text).filter_map(link).collect()
}

fn has_heading(topic: &str, anchor: &str) -> bool {
    let topic = super::topic(topic).expect("a topic");
    headings(topic.text).iter().any(|(_, _, known)| known == anchor)
}

#[test]
fn every_file_of_the_folder_is_a_topic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs");
    let files = std::fs::read_dir(folder).expect("folder").filter_map(|entry| {
        let name = entry.expect("entry").file_name().into_string().expect("a name");
        name.strip_suffix(".md").map(str::to_owned)
    });
    let files: BTreeSet<String> = files.collect();
    let topics: BTreeSet<String> = TOPICS.iter().map(|topic| topic.name.to_owned()).collect();
    assert_eq!(files, topics);
}

#[test]
fn every_link_of_a_topic_leads_to_something() {
    for topic in TOPICS {
        for url in links(topic.text) {
            let leads = match target(&url) {
                Target::Here(anchor) => has_heading(topic.name, anchor),
                Target::Topic(name, anchor) => anchor.is_none_or(|anchor| has_heading(name, anchor)),
                Target::Picture(file) => picture(file).is_some(),
                Target::Configuration | Target::Outside(_) => true,
                Target::Unknown(_) => false,
            };
            assert!(leads, "{}.md: {url} leads nowhere", topic.name);
        }
        // A reference without a definition stays as text.
        let shown = plain(&render(topic.text, 1_000));
        assert!(!shown.contains("]["), "{}.md: a link has no definition: {shown}", topic.name);
    }
}

#[test]
fn every_link_of_the_readme_leads_to_a_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let links = links(README);
    for url in &links {
        assert!(root.join(url).exists(), "README.md: {url} is not there");
    }
    for topic in TOPICS {
        assert!(links.contains(&format!("src/docs/{}.md", topic.name)), "README.md does not lead to {}", topic.name);
    }
}

/// Rustdoc has no files, so each link between pages needs a definition that leads to an item.
#[test]
fn every_link_between_topics_has_its_definition_for_rustdoc() {
    for topic in TOPICS {
        for line in topic.text.lines() {
            let Some((label, url)) = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) else { continue };
            let item = match target(url) {
                Target::Topic(name, None) => format!("crate::docs::{name}"),
                Target::Topic(name, Some(anchor)) => format!("crate::docs::{name}#{anchor}"),
                Target::Configuration => "crate::docs::SIDETONE_TOML".to_owned(),
                // From the page that `cargo doc` makes of a topic.
                Target::Picture(file) => format!("../../../../../src/docs/{file}"),
                Target::Here(_) | Target::Outside(_) | Target::Unknown(_) => continue,
            };
            let definition = format!("[{label}]: {item}");
            assert!(
                RUSTDOC_LINKS.lines().any(|line| line == definition),
                "rustdoc-links.txt lacks this line, for {}.md:\n{definition}",
                topic.name
            );
        }
        let inline = links(topic.text).into_iter().filter(|url| topic.text.contains(&format!("]({url})")));
        let inline: Vec<String> =
            inline.filter(|url| matches!(target(url), Target::Topic(..) | Target::Picture(_))).collect();
        assert!(inline.is_empty(), "{}.md: {inline:?} need a definition instead", topic.name);
    }
}

#[test]
fn every_topic_is_well_formed() {
    for Topic { name, text, .. } in TOPICS {
        let headings = headings(text);
        assert_eq!(headings.iter().filter(|(level, ..)| *level == 1).count(), 1, "{name}.md: one title");
        assert_eq!(headings[0].2, *name, "{name}.md: its title");
        let anchors: BTreeSet<&String> = headings.iter().map(|(_, _, anchor)| anchor).collect();
        assert_eq!(anchors.len(), headings.len(), "{name}.md: two headings have one anchor");
        for event in events(text) {
            match event {
                // Rustdoc takes code without a language for Rust, and runs it.
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                    assert!(
                        !info.is_empty() && !info.starts_with("rust"),
                        "{name}.md: a code block without a language"
                    );
                }
                Event::Start(Tag::CodeBlock(CodeBlockKind::Indented)) => panic!("{name}.md: an indented code block"),
                Event::Html(html) | Event::InlineHtml(html) => panic!("{name}.md: HTML: {html}"),
                _ => {}
            }
        }
        // A pipe in a cell would start a new cell.
        let mut columns = None;
        for line in text.lines() {
            let count = line.starts_with('|').then(|| line.matches('|').count());
            assert!(columns.is_none() || count.is_none() || columns == count, "{name}.md: another cell in {line}");
            columns = count;
        }
    }
}

#[test]
fn readme_has_at_most_900_words_outside_of_code() {
    let mut words = 0;
    let mut in_code = false;
    for line in README.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            words += line.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count();
        }
    }
    assert!((300..=900).contains(&words), "README.md has {words} words outside of code");
}

#[test]
fn clients_of_the_readme_have_at_most_25_lines() {
    for client in ["agent.py", "dashboard.py"] {
        let (_, rest) = README.split_once(&format!("file=tests/clients/{client}\n")).expect(client);
        let lines = rest.lines().take_while(|line| *line != "```").filter(|line| !line.is_empty()).count();
        assert!((10..=25).contains(&lines), "{client} has {lines} lines");
    }
}

#[test]
fn page_has_its_whole_topic_and_loads_only_its_pictures() {
    for topic in TOPICS {
        let page = page(topic);
        for (level, _, anchor) in headings(topic.text) {
            assert!(page.contains(&format!("<h{level} id=\"{anchor}\">")), "{}: {anchor}", topic.name);
        }
        for mark in ["<!--", "<script", "@import", "url("] {
            assert!(!page.contains(mark), "{}: {mark}", topic.name);
        }
        let pictures: Vec<String> = links(topic.text).into_iter().filter(|url| url.ends_with(".png")).collect();
        assert_eq!(page.matches(" src=").count(), pictures.len(), "{}", topic.name);
        for file in pictures {
            assert!(page.contains(&format!("<img src=\"{file}\" alt=\"A")), "{}: {file} is described", topic.name);
        }
        assert_eq!(page.matches("<h1").count(), 1, "{}", topic.name);
        for other in TOPICS {
            assert!(
                page.contains(&format!("<a href=\"{}\"", other.name)),
                "{} does not lead to {}",
                topic.name,
                other.name
            );
            assert!(!page.contains(&format!("{}.md\"", other.name)), "{}: a link leads to a file", topic.name);
        }
        let fences = topic.text.lines().filter(|line| line.starts_with("```")).count();
        assert_eq!(page.matches("<pre>").count() * 2, fences, "{}", topic.name);
    }
    let index = index();
    for topic in TOPICS {
        assert!(index.contains(&format!("<a href=\"{0}\">{0}</a>: {1}", topic.name, topic.summary)), "{index}");
    }
    assert!(index.contains("<a href=\"sidetone.toml\">"), "{index}");
}

/// Repository hosts and served pages show each picture, and nobody waits for it.
#[test]
fn pictures_are_small_and_are_those_of_the_pages() {
    let shown: BTreeSet<String> =
        TOPICS.iter().flat_map(|topic| links(topic.text)).filter(|url| url.ends_with(".png")).collect();
    assert_eq!(shown, PICTURES.iter().map(|(name, _)| (*name).to_owned()).collect::<BTreeSet<_>>());
    for (name, bytes) in PICTURES {
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() <= 120 * 1024, "{name} has {} bytes", bytes.len());
    }
}

#[test]
fn text_of_a_page_is_never_markup() {
    let text = "# A <script>x</script>\n\n`<b>` and <img src=x> and ![so](https://example.com/a.png)\n";
    let page = page(&Topic { name: "evil", summary: "", text });
    for markup in ["<script", "<code><b>", "<img"] {
        assert!(!page.contains(markup), "{page}");
    }
    assert!(page.contains("&lt;b&gt;") && page.contains("<em>so</em>"), "{page}");
}

#[test]
fn terminal_shows_every_word_within_its_width() {
    for topic in TOPICS {
        let mut in_code = false;
        let prose = topic.text.lines().filter(|line| {
            let fence = line.starts_with("```");
            in_code ^= fence;
            !fence && !in_code
        });
        let prose: String = prose.map(|line| format!("{line}\n")).collect();
        for width in [60, 100, 160] {
            let shown = plain(&render(&prose, width));
            for line in shown.lines() {
                let unbreakable = line.split_whitespace().any(|word| word.chars().count() + 8 > width);
                assert!(unbreakable || line.chars().count() <= width, "{}: {line:?}", topic.name);
            }
            let words: BTreeSet<&str> = shown.split_whitespace().collect();
            for event in events(&prose) {
                let Event::Code(code) = event else { continue };
                // A comma or similar may stand next to a word.
                for word in code.split_whitespace() {
                    assert!(words.iter().any(|shown| shown.contains(word)), "{}: {word}", topic.name);
                }
            }
        }
    }
}

#[test]
fn terminal_text_has_colours_lists_tables_and_links() {
    let text = "# Title\n\nSome **bold** text, `code`, and [Work][w].\n\n1. one\n   * inner\n2. two\n\n| a | long |\n| --- | --- |\n\
                | `x` | first second |\n\n```sh\nrun  it\n```\n\n[w]: limits.md#work\n";
    let shown = render(text, 40);
    for colour in ["\u{1b}[1;4mTitle", "\u{1b}[1mbold", "\u{1b}[36mcode", "\u{1b}[36mrun  it"] {
        assert!(shown.contains(colour), "{shown:?}");
    }
    let expected = "Title\n\nSome bold text, code, and Work (sidetone\nhelp limits).\n\n1. one\n  • inner\n2. two\n\n\
                    a  long\nx  first second\n\n    run  it\n";
    assert_eq!(plain(&shown), expected);
    let narrow =
        "| name | meaning | default |\n| --- | --- | --- |\n| `a_very_long_name_of_a_key` | several words | none |\n";
    assert_eq!(plain(&render(narrow, 30)), "a_very_long_name_of_a_key\n  meaning: several words\n  default: none\n");
}
