//! Rules for the source that no compiler checks: which rooms a room may import, how long files are, what the first
//! lines of a room contain, which mechanisms exist in only one room, and which dependencies are allowed.
//!
//! Reads text; knows nothing of a running daemon.

mod dependencies;
mod files;
mod imports;
mod layers;
mod proofs;
mod sources;
