//! Checks files: no file is too long, the first lines of each module folder say what it does not know, and inputs with
//! which a test failed once are kept.

use super::sources::{File, files};

/// Longest file, lines.
const LONGEST: usize = 400;

/// Files that are longer, with the reason.
const LONGER: &[(&str, &str)] = &[];

#[test]
fn files_have_at_most_400_lines() {
    let code: &[&str] = &[".rs", ".html", ".css", ".js", ".mjs", ".py"];
    // Scripts have no file extension.
    let all = [("src", code), ("tests", code), ("scripts", &[""])].map(|(folder, ends)| files(folder, ends));
    let all: Vec<&File> = all.iter().flatten().collect();
    let mut faults = Vec::new();
    for File { path, text } in &all {
        let lines = text.lines().count();
        let listed = LONGER.iter().any(|(longer, _)| longer == path);
        if lines > LONGEST && !listed {
            faults.push(format!("{path}: {lines} lines, at most {LONGEST}; split it by what its parts do"));
        } else if lines <= LONGEST && listed {
            faults.push(format!("{path}: it is short now; take it out of LONGER"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(LONGER.iter().all(|(path, why)| all.iter().any(|file| file.path == *path) && !why.is_empty()));
}

/// The doc comment at the beginning of a file, as one line.
fn doc_of(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Returns true if a component's doc comment says what the component does not know, in any of the usual phrases.
fn says_what_it_does_not_know(doc: &str) -> bool {
    let doc = doc.to_lowercase();
    let ways = ["knows no", "know no", "knows only", "does not know", "do not know", "knows neither"];
    ways.iter().any(|way| doc.contains(way))
}

#[test]
fn components_say_what_they_do_not_know() {
    let components: Vec<File> = files("src", &["/mod.rs"]);
    let mut silent = Vec::new();
    for File { path, text } in &components {
        // Folders of tests need no such sentence.
        if !path.contains("/tests/") && !says_what_it_does_not_know(&doc_of(text)) {
            silent.push(path.as_str());
        }
    }
    assert!(silent.is_empty(), "these begin without a word on what they do not know: {}", silent.join(", "));
}

#[test]
fn modules_begin_with_what_they_are() {
    // Tests in separate files are described by the module that they test.
    let modules = files("src", &[".rs"]).into_iter().filter(|file| !file.path.ends_with("tests.rs"));
    let without: Vec<String> = modules.filter(|file| doc_of(&file.text).is_empty()).map(|file| file.path).collect();
    assert!(without.is_empty(), "no doc comment at the beginning of {}", without.join(", "));
}

#[test]
fn doc_comments_are_read() {
    let doc = doc_of("//! A component.\n//!\n//! Knows no\n//! socket.\nuse a;\n//! No.\n");
    assert_eq!(doc, "A component.  Knows no socket.");
    assert!(says_what_it_does_not_know(&doc));
    assert!(!says_what_it_does_not_know("A component. You know."));
}
