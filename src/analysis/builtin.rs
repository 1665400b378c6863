//! The analyses that come with the program: folders like a user's, embedded.
//!
//! To add one: a folder here and a line in [`FOLDERS`].

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
    folder!("sentiment_turn", "analysis.toml", "v1.j2", "schema.json"),
];
