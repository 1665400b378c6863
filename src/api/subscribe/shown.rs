//! The view of a call, for a snapshot.
//!
//! Knows no socket and no frame.

use std::sync::Arc;

use super::pager::Owed;
use super::{Deps, ViewError};
use crate::journal::JournalError;
use crate::types::Seq;
use crate::types::view::View;

/// The `seq` of the call's newest event if it was looked up, else 0; and the view, or nothing if the call does not
/// exist.
pub(super) type Shown = Result<(Seq, Option<Arc<View>>), ViewError>;

/// Gets the view of a call. If the view must contain the call's newest event, that is looked up first.
pub(super) async fn show(deps: &Deps, owed: &Owed) -> Shown {
    let newest = if owed.with_newest { deps.hub.journal().head(&owed.call).await } else { Ok(0) };
    let newest = match newest {
        Ok(newest) => newest,
        Err(JournalError::Unavailable(message)) => return Err(ViewError(message)),
        // Then the view itself says how far the call can be read.
        Err(_) => 0,
    };
    Ok((newest, deps.views.view(&owed.call).await?))
}
