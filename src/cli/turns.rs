//! Lists all turns of a call, page by page. Does not know the fields of a turn.

use std::time::Duration;

use anyhow::Result;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fetch;
use super::target::Target;

/// Number of turns in one page.
const PAGE: usize = 1000;

/// The turns of `call`; none if the daemon does not know it.
///
/// # Errors
/// The daemon refuses, or does not answer within `patience`.
///
/// # Cancel safety
/// Dropping the future drops the connection.
pub(crate) async fn list<T: DeserializeOwned>(target: &Target, call: &str, patience: Duration) -> Result<Vec<T>> {
    let mut turns = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/calls/{call}/turns?limit={PAGE}{after}");
        let Some(page) = fetch::get_patiently(target, &path, patience).await? else { break };
        turns.extend(serde_json::from_value::<Vec<T>>(page["turns"].clone())?);
        after = match &page["next"] {
            Value::Null => break,
            Value::String(next) => format!("&after={next}"),
            next => format!("&after={next}"),
        };
    }
    Ok(turns)
}
