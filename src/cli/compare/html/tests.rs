//! The page as a browser reads it.

use crate::cli::compare::html::page;
use crate::cli::compare::report::Report;
use crate::cli::trial::tests::{all, played, record};

const HOSTILE: [&str; 4] = [
    "</style></title><script>alert('I will send you the form')</script>",
    "<img src=http://example.com/x onerror=alert(1)> I will call you on Friday, \"quoted\" & 'single'.",
    "Can you <a href=\"https://example.com\">open</a> this? --> ]]> {{ x }}",
    "I will refund <b>12 euros</b> today, I promise you that.",
];

/// Every tag of the page: its name and its attributes, as written. Text has no `<` of its own.
fn tags(page: &str) -> Vec<(String, String)> {
    let (before, rest) = page.split_once("<style>").expect("a style");
    let (style, after) = rest.split_once("</style>").expect("its end");
    assert!(!style.contains("url(") && !style.contains("@import"), "the style loads something");
    let pieces = before.split('<').skip(1).chain(after.split('<').skip(1));
    let tag = |piece: &str| {
        let (tag, _) = piece.split_once('>').unwrap_or_else(|| panic!("no end of {piece}"));
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        (name.trim_start_matches('/').to_owned(), attributes.to_owned())
    };
    pieces.map(tag).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_loads_no_file_and_escapes_text() {
    let folder = tempfile::tempdir().expect("folder");
    record(folder.path(), "call", 3_000, &HOSTILE);
    let sources = all(folder.path());
    let analyses = ["summary", "action_items", "questions", "sentiment_turn"];
    let (first, calls) = played(&sources, &analyses).await;
    let (mut second, mut again) = played(&sources, &analyses).await;
    second.name = "<b>".to_owned();
    second.what = "\"><script>".to_owned();
    again[0].insights.remove("questions");
    let labels = "{\"kind\":\"call\",\"call_id\":\"call\",\"summary\":\"<script>I will send you the form</script>\"}";
    let labels = crate::evaluation::labels::Labels::read(labels).expect("labels");
    let page = page(&Report::new(&[first, second], vec![calls, again], Some(&labels)));
    let known = [
        "!doctype", "html", "head", "meta", "title", "style", "body", "header", "main", "section", "h1", "h2", "h3",
        "h4", "h5", "p", "ul", "li", "span", "strong", "div", "b", "i", "small", "em", "table", "caption", "thead",
        "tbody", "tr", "th", "td", "details", "summary", "dl", "dt", "dd", "svg", "text", "line", "circle", "path",
        "ins", "del",
    ];
    for (name, attributes) in tags(&page) {
        assert!(known.contains(&name.as_str()), "<{name} {attributes}>");
        let mut rest = attributes.as_str();
        while let Some((attribute, after)) = rest.split_once("=\"") {
            let harmless =
                ["class", "style", "lang", "charset", "name", "content", "http-equiv", "scope", "tabindex", "role"];
            let drawn =
                ["viewBox", "width", "height", "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "d", "text-anchor"];
            let attribute = attribute.trim();
            let known = harmless.contains(&attribute)
                || drawn.contains(&attribute)
                || attribute.starts_with("aria-")
                || attribute == "data-name";
            assert!(known, "<{name} {attributes}>");
            rest = after.split_once('"').expect("the end of a value").1;
        }
        assert!(!attributes.contains("http:") && !attributes.contains("https:"), "<{name} {attributes}>");
    }
    for shown in ["&lt;script&gt;", "no insight", "ROUGE-1 of the current summary", "prefers-color-scheme: dark"] {
        assert!(page.contains(shown), "{shown}");
    }
}
