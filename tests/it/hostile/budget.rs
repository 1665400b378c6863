//! Work of a stranger's making runs in a budget: schemas, patterns, quotes, JSON to be repaired, templates.
