//! Rules for the source that no compiler checks: which components a component may import, how long files are, what the first
//! lines of a component contain, which mechanisms exist in only one component, and which dependencies are allowed.
//!
//! Reads text; knows nothing of a running daemon.

mod dependencies;
mod files;
mod imports;
mod layers;
mod proofs;
mod sources;
