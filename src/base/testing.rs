//! What tests of properties share.
//!
//! Knows no property.

use proptest::test_runner::{Config, FileFailurePersistence};

/// The configuration of a test of a property. A case that fails is kept beside the source, in a file that ends in
/// `.proptest-regressions`, and is the first that is tried from then on. Such files are committed.
pub(crate) fn kept() -> Config {
    let beside = FileFailurePersistence::WithSource("proptest-regressions");
    Config { failure_persistence: Some(Box::new(beside)), ..Config::default() }
}
