//! Shared by property tests. Knows no property.

use proptest::test_runner::{Config, FileFailurePersistence};

/// The configuration of a property test. A failing case is stored next to the source, in a file that ends in
/// `.proptest-regressions`, and later runs try it first. These files are committed.
pub(crate) fn kept() -> Config {
    let beside = FileFailurePersistence::WithSource("proptest-regressions");
    Config { failure_persistence: Some(Box::new(beside)), ..Config::default() }
}
