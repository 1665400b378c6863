//! The built-in analyses: folders like a user's, embedded in the program.
//!
//! To add one, add a folder here and a line in [`FOLDERS`].

/// Files of one folder, by name.
type Files = &'static [(&'static str, &'static str)];

macro_rules! folder {
    ($name:literal, $($file:literal),+) => {
        ($name, &[$(($file, include_str!(concat!($name, "/", $file)))),+] as Files)
    };
}

/// Every built-in analysis.
pub(super) static FOLDERS: &[(&str, Files)] = &[
    folder!("summary", "analysis.toml", "v1.j2", "schema.json"),
    folder!("sentiment", "analysis.toml", "v1.j2", "schema.json"),
    folder!("stats", "analysis.toml", "schema.json"),
    folder!("sentiment_turn", "analysis.toml", "v1.j2", "schema.json"),
    folder!("action_items", "analysis.toml", "v1.j2", "schema.json"),
    folder!("questions", "analysis.toml", "v1.j2", "schema.json"),
    folder!("topics", "analysis.toml", "v1.j2", "schema.json"),
    folder!("entities", "analysis.toml", "v1.j2", "schema.json"),
    folder!("speakers", "analysis.toml", "v1.j2", "schema.json"),
    folder!("translation", "analysis.toml", "v1.j2", "schema.json"),
    folder!("next_best_action", "analysis.toml", "v1.j2", "schema.json"),
    folder!("scorecard", "analysis.toml", "v1.j2", "schema.json"),
    folder!("call_report", "analysis.toml", "v1.j2", "schema.json"),
];

/// The folder of a built-in analysis.
pub(super) fn folder(name: &str) -> Option<super::Folder> {
    let (_, files) = FOLDERS.iter().find(|(known, _)| *known == name)?;
    Some(super::Folder::new(files.iter().copied()))
}
