//! The project's files, and their code without comments and tests.
//!
//! Knows no rule: the tests check what files must be like.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// One file.
pub(super) struct File {
    /// Path within the project, such as `src/hub/mod.rs`.
    pub(super) path: String,
    pub(super) text: String,
}

/// A file of `src/` that is compiled into the daemon.
pub(super) struct Source {
    /// Path within `src/`, such as `hub/mod.rs`.
    pub(super) path: String,
    /// The text without comments, and without the tests at its end.
    pub(super) code: String,
}

impl Source {
    /// The component that the file belongs to, such as `hub`.
    pub(super) fn component(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap_or_default()
    }

    /// The module, such as `hub::reader`.
    pub(super) fn module(&self) -> String {
        self.path.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::")
    }
}

fn below(folder: &Path, into: &mut Vec<PathBuf>) {
    // Folders that tools create in the folders of tests.
    const LEFT: [&str; 4] = ["target", "node_modules", "__pycache__", ".pytest_cache"];
    for entry in std::fs::read_dir(folder).expect("read the folder") {
        let path = entry.expect("entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match path.is_dir() {
            true if LEFT.contains(&name.as_str()) => {}
            true => below(&path, into),
            false => into.push(path),
        }
    }
}

/// All files below `folder` whose names end with one of `ends`, in order.
pub(super) fn files(folder: &str, ends: &[&str]) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    below(&root.join(folder), &mut paths);
    paths.sort();
    let relative = |path: &PathBuf| path.strip_prefix(root).expect("below the project").display().to_string();
    let wanted = paths.iter().filter(|path| ends.iter().any(|end| path.to_string_lossy().ends_with(end)));
    let read =
        |path: &PathBuf| File { path: relative(path), text: std::fs::read_to_string(path).expect("read the file") };
    let files: Vec<File> = wanted.map(read).collect();
    assert!(!files.is_empty(), "no {ends:?} below {folder}");
    files
}

/// The files of the daemon, without those that are compiled only for tests.
pub(super) fn sources() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let files = files("src", &[".rs"]);
        let tests: BTreeSet<String> = files.iter().flat_map(|file| modules_for_tests(&file.path, &file.text)).collect();
        let is_test = |path: &str| {
            tests.iter().any(|module| path == format!("{module}.rs") || path.starts_with(&format!("{module}/")))
        };
        let kept = files.iter().filter(|file| !is_test(&file.path));
        kept.map(|file| Source { path: file.path["src/".len()..].to_owned(), code: code_of(&file.text) }).collect()
    })
}

/// The modules that the file at `path` declares only for tests, as paths without an extension.
fn modules_for_tests(path: &str, text: &str) -> Vec<String> {
    let own = path.trim_end_matches(".rs");
    let folder = own.strip_suffix("/mod").or_else(|| own.strip_suffix("/lib")).unwrap_or(own);
    let declared = text.split("#[cfg(test)]\n").skip(1).filter_map(|rest| {
        let (declaration, _) = rest.split_once(['\n', '{'])?;
        let (_, name) = declaration.strip_suffix(';')?.rsplit_once("mod ")?;
        Some(format!("{folder}/{name}"))
    });
    declared.collect()
}

/// The code of a file: without comments, and without the module of tests at its end.
pub(super) fn code_of(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let mut code = String::new();
    for line in text[..end].lines() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        code.push_str(line.split(" // ").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

#[test]
fn code_is_found_between_comments_and_tests() {
    let text = "//! Docs.\nuse a; // why\n#[cfg(test)]\nmod tests;\nmod b;\n#[cfg(test)]\nmod tests {\nuse c;\n}\n";
    assert_eq!(code_of(text), "use a;\n#[cfg(test)]\nmod tests;\nmod b;\n");
    assert_eq!(modules_for_tests("src/a/mod.rs", text), ["src/a/tests"]);
    assert_eq!(modules_for_tests("src/a/b.rs", "#[cfg(test)]\npub(crate) mod testing;\n"), ["src/a/b/testing"]);
    assert!(sources().iter().any(|source| source.path == "hub/reader.rs" && source.component() == "hub"));
    assert!(sources().iter().all(|source| !source.path.contains("/tests")), "a file of tests is taken for code");
}
