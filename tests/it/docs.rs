//! The documentation: every topic from the command line and from the daemon, and a comparison of its tables and frames
//! with the code that they describe.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sidetone::docs::{PICTURES, SIDETONE_TOML, TOPICS, topic};

use crate::support::daemon::{Daemon, run};
use crate::support::{Json, http, shared};

fn text(name: &str) -> &'static str {
    topic(name).unwrap_or_else(|| panic!("no topic {name}")).text
}

/// The rows of the table with this header; cells without white space and backticks around them.
fn rows(page: &'static str, header: &str) -> Vec<Vec<&'static str>> {
    let (_, table) = page.split_once(header).unwrap_or_else(|| panic!("no table {header}"));
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells =
        |row: &'static str| row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
    let rows: Vec<Vec<&str>> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "an empty table {header}");
    rows
}

async fn help(words: &[&str]) -> (Option<i32>, String, String) {
    let output = run(&[&["help"], words].concat()).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topic_is_printed_by_help_and_served_as_a_page() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    for topic in TOPICS {
        let (code, out, _) = help(&[topic.name]).await;
        assert_eq!((code, out.as_str()), (Some(0), topic.text), "{}", topic.name);
        let reply = http::request(daemon.port, "GET", &format!("/docs/{}", topic.name), &[], None).await;
        assert_eq!(reply.status, 200, "{}", topic.name);
        assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
        let policy = reply.header("content-security-policy").unwrap_or_default();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("script"), "{policy}");
        let title = topic.text.lines().next().and_then(|line| line.strip_prefix("# ")).expect("a title");
        assert!(reply.text().contains(&format!("<h1 id=\"{}\">{title}</h1>", topic.name)), "{}", topic.name);
    }
    let index = http::request(daemon.port, "GET", "/docs/", &[], None).await;
    assert!(TOPICS.iter().all(|topic| index.text().contains(&format!("href=\"{}\"", topic.name))), "{}", index.text());
    let (code, out, _) = help(&["sidetone.toml"]).await;
    assert_eq!((code, out.as_str()), (Some(0), SIDETONE_TOML));
    let served = http::request(daemon.port, "GET", "/docs/sidetone.toml", &[], None).await;
    assert_eq!((served.status, served.text()), (200, SIDETONE_TOML.to_owned()));
    assert_eq!(served.header("content-type"), Some("text/plain; charset=utf-8"));
    for (name, bytes) in PICTURES {
        let served = http::request(daemon.port, "GET", &format!("/docs/{name}"), &[], None).await;
        assert_eq!((served.status, served.header("content-type")), (200, Some("image/png")), "{name}");
        assert_eq!(served.body, *bytes, "{name}");
    }
    let folder = http::request(daemon.port, "GET", "/docs", &[], None).await;
    assert_eq!((folder.status, folder.header("location")), (308, Some("docs/")));
    let unknown = http::request(daemon.port, "GET", "/docs/limit", &[], None).await;
    assert_eq!((unknown.status, &unknown.json()["code"]), (404, &Json::from("unknown_path")));
    assert!(unknown.text().contains("limits"), "{}", unknown.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn help_lists_commands_and_topics_and_shows_the_help_of_a_command() {
    let _machine = shared().await;
    let (code, all, _) = help(&[]).await;
    assert_eq!(code, Some(0));
    for name in ["  demo ", "  serve ", "  key ", "  help ", "Topics:", "  limits ", "  sidetone.toml "] {
        assert!(all.contains(name), "{name}: {all}");
    }
    assert!(!all.contains('\u{1b}'), "colours go to a terminal only: {all}");
    for words in [&["replay"][..], &["key", "create"]] {
        let shown = String::from_utf8_lossy(&run(&[words, &["--help"]].concat()).await.stdout).into_owned();
        assert!(shown.contains("Usage: sidetone ") && shown.contains(words[words.len() - 1]), "{shown}");
        assert_eq!(help(words).await.1, shown, "{words:?}");
    }
    for words in [&["limit"][..], &["limits", "create"], &["key", "destroy"]] {
        let (code, out, err) = help(words).await;
        assert_eq!((code, out.as_str()), (Some(2), ""), "{words:?}");
        assert!(err.contains("`sidetone help` lists all of them"), "{err}");
    }
}

/// Names and values of all `Bound::new("name", value)` in `src/`.
fn fixed_limits() -> BTreeMap<String, u64> {
    fn walk(folder: &Path, found: &mut BTreeMap<String, u64>) {
        for entry in std::fs::read_dir(folder).expect("read src") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                walk(&path, found);
                continue;
            }
            if path.extension().is_none_or(|end| end != "rs") {
                continue;
            }
            let source = std::fs::read_to_string(&path).expect("read source");
            for rest in source.split("Bound::new(\"").skip(1) {
                let (name, rest) = rest.split_once("\", ").expect("a name");
                if name.starts_with("test_") {
                    continue;
                }
                let (value, _) = rest.split_once(')').expect("a value");
                let factors = value.split('*').map(|factor| factor.trim().replace('_', "").parse::<u64>());
                let product: Result<u64, _> = factors.product();
                found.insert(name.to_owned(), product.unwrap_or_else(|error| panic!("{name}: {value}: {error}")));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 20, "{found:?}");
    found
}

/// A number in the form of the documentation.
fn readable(name: &str, value: u64) -> String {
    const KIB: u64 = 1024;
    if name.ends_with("_ms") {
        return format!("{} s", value / 1000);
    }
    match name.ends_with("_bytes") {
        true if value.is_multiple_of(KIB * KIB) => format!("{} MiB", value / KIB / KIB),
        true => format!("{} KiB", value / KIB),
        false => {
            let digits = value.to_string();
            let groups: Vec<&str> =
                digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
            groups.join(",")
        }
    }
}

#[test]
fn fixed_limits_of_work_are_those_of_the_code() {
    let limits = fixed_limits();
    let table = rows(text("limits"), "| limit | fixed at | unit | of |");
    let documented: BTreeMap<&str, &str> = table.iter().map(|row| (row[0], row[1])).collect();
    let expected: BTreeMap<&str, String> =
        limits.iter().map(|(name, value)| (name.as_str(), readable(name, *value))).collect();
    let expected: BTreeMap<&str, &str> = expected.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(documented, expected, "the table \"Work\" of src/docs/limits.md");
    let (_, block) = SIDETONE_TOML.split_once("# ---- Fixed limits of work").expect("the block");
    let lines = block.lines().take_while(|line| !line.starts_with('['));
    let in_example: BTreeMap<&str, u64> = lines
        .filter_map(|line| line.strip_prefix("# ")?.split_once(": "))
        .filter_map(|(name, rest)| Some((name, rest.split_whitespace().next()?.parse().ok()?)))
        .collect();
    let limits: BTreeMap<&str, u64> = limits.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(in_example, limits, "the fixed limits of config/sidetone.toml");
}

/// Every limit of the configuration is in the page, with the error that it causes.
#[test]
fn configured_limits_are_all_in_the_page() {
    let (_, section) = SIDETONE_TOML.split_once("\n[limits]").expect("the section");
    let keys: BTreeSet<&str> = section
        .lines()
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.trim_start_matches("# ").split_once(" = ").map(|(key, _)| key))
        .collect();
    assert!(keys.len() >= 15, "{keys:?}");
    let table = rows(text("limits"), "| limit | default | over it |");
    for key in keys {
        assert!(
            table.iter().any(|row| row[0].split(", ").any(|name| name.trim_matches('`') == key)),
            "{key} is not in src/docs/limits.md"
        );
    }
}

#[test]
fn dialects_of_the_page_are_those_of_the_code() {
    let table = rows(text("feeding"), "| dialect | accepted frames | how the stream ends |");
    let documented: Vec<&str> = table.iter().map(|row| row[0]).collect();
    let known: Vec<&str> = sidetone::stt::DIALECTS.iter().map(|dialect| dialect.name()).collect();
    assert_eq!(documented, known);
}

#[test]
fn vendors_of_the_page_are_those_of_the_code() {
    let table = rows(text("gateway"), "| `provider` | default `base_url` | differences |");
    let documented: BTreeSet<&str> = table.iter().map(|row| row[0]).collect();
    let known: BTreeSet<&str> = sidetone::llm::PROVIDERS.iter().map(|provider| provider.name()).collect();
    assert_eq!(documented, known);
}

#[test]
fn scopes_of_the_page_are_those_of_the_code() {
    let table = rows(text("security"), "| scope | opens |");
    let documented: Vec<&str> = table.iter().map(|row| row[0]).collect();
    assert_eq!(documented, sidetone::keys::Scope::ALL.map(sidetone::keys::Scope::as_str));
}

/// Paths of all members of a JSON value; a member in `opaque` counts as one path.
fn paths(value: &Json, at: &str, into: &mut BTreeSet<String>) {
    const OPAQUE: [&str; 5] = ["insights", "insight.value", "final", "missing", "insights_omitted"];
    match value {
        Json::Object(members) if !OPAQUE.contains(&at) => {
            for (name, value) in members {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                into.insert(path.clone());
                paths(value, &path, into);
            }
        }
        Json::Array(items) if !OPAQUE.contains(&at) => items.iter().for_each(|item| paths(item, at, into)),
        _ => {}
    }
}

/// Frames by type, each as the paths of all its members.
fn members(frames: impl Iterator<Item = Json>) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for frame in frames {
        let kind = frame["type"].as_str().unwrap_or_default().to_owned();
        paths(&frame, "", found.entry(kind).or_default());
    }
    found
}

/// The annotated frames have exactly the members of the golden wire frames, except for rare ones.
#[test]
fn annotated_frames_have_the_members_of_the_wire() {
    const RARE: [(&str, &str); 13] = [
        ("welcome", "insights_omitted"),
        ("insight.updated", "insight.turn"),
        ("insight.updated", "insight.evidence.turn"),
        ("insight.updated", "insight.evidence.quote"),
        ("insight.updated", "insight.evidence.unverified"),
        ("insight.updated", "insight.changes"),
        ("insight.updated", "insight.changes.op"),
        ("insight.updated", "insight.changes.list"),
        ("insight.updated", "insight.changes.id"),
        ("insight.updated", "insight.changes.text"),
        ("insight.updated", "insight.changes.speaker"),
        ("insight.updated", "insight.dropped_operations"),
        ("insight.failed", "turn"),
    ];
    const GOLDENS: [&str; 2] = [include_str!("../golden/wire/ingest.snap"), include_str!("../golden/wire/alerts.snap")];
    let goldens = GOLDENS.map(|golden| {
        let (_, golden) = golden.split_once("---\n{").expect("the header of a golden");
        let golden = format!("{{{golden}");
        let frames = serde_json::Deserializer::from_str(&golden).into_iter::<Json>();
        frames.map(|frame| frame.expect("a frame")).collect::<Vec<Json>>()
    });
    let on_the_wire = members(goldens.into_iter().flatten());
    let blocks =
        ["feeding", "subscribing", "rules"].into_iter().flat_map(|name| text(name).split("```jsonc frame\n").skip(1));
    let annotated = members(blocks.map(|block| {
        let (block, _) = block.split_once("```").expect("the end of a block");
        let bare: Vec<&str> = block.lines().map(|line| line.split_once(" //").map_or(line, |(bare, _)| bare)).collect();
        serde_json::from_str(&bare.join("\n")).unwrap_or_else(|error| panic!("{error}: {block}"))
    }));
    for kind in ["welcome", "insight.updated", "insight.failed", "call.completed", "alert.raised", "alert.cleared"] {
        let (documented, real) = (&annotated[kind], &on_the_wire[kind]);
        let missing: Vec<&String> = real.difference(documented).collect();
        assert!(missing.is_empty(), "{kind}: {missing:?} are not explained");
        let invented = documented.difference(real).filter(|path| !RARE.contains(&(kind, path.as_str())));
        let invented: Vec<&String> = invented.collect();
        assert!(invented.is_empty(), "{kind}: {invented:?} are not on the wire");
    }
}
