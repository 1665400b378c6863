//! The house: what no compiler checks about the source. Which room may name which, how long files are, what the first
//! lines of a room say, which mechanism has one home, and what may be depended on.
//!
//! Reads text; knows nothing of a running daemon.

mod dependencies;
mod files;
mod imports;
mod layers;
mod proofs;
mod sources;
