//! Which events of its call a producer gets on its own socket.
//!
//! Knows no socket: returns frames as the hub has them.

use super::ending::End;
use crate::base::ws::Utf8Bytes;
use crate::hub::{Filter, Hub, Include, Item, Wants};
use crate::protocol::CloseCode;
use crate::protocol::event::Kind;

/// The parameter `results`. The call's end is always sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Results {
    /// Acks, errors and `call.completed` only.
    None,
    /// In addition, insights.
    Insights,
    /// Every sequenced event.
    All,
}

impl Results {
    /// The events that wake a producer's task. A call may have thousands of producers, and few of them want all events.
    pub(super) fn wants(self) -> Wants {
        match self {
            Self::All => Wants::EVENTS,
            Self::Insights => Wants::INSIGHTS.and(Wants::END),
            Self::None => Wants::END,
        }
    }

    /// The filter for the results that the producer wants. Of each of `analyses`, only the newest insight is needed.
    pub(super) fn filter(self, analyses: &[String]) -> Filter {
        Filter {
            analyses: (self == Self::None).then(Vec::new),
            no_alerts: self != Self::All,
            include: Include { turns: self == Self::All, words: false, partials: false, deltas: false },
            latest: analyses.to_vec(),
        }
    }

    /// The frames of `items` that a producer gets, and how its connection ends if the call has ended.
    pub(super) fn frames(self, filter: &Filter, items: &[Item], hub: &Hub) -> (Vec<Utf8Bytes>, Option<End>) {
        let mut frames = Vec::new();
        for item in filter.pick(items, hub) {
            let Item::Event(frame) = item else { continue };
            let wanted = match self {
                Self::All => true,
                Self::Insights => frame.kind().is_insight(),
                Self::None => false,
            };
            if wanted || frame.kind().ends_call() {
                frames.push(frame.text().clone());
            }
            match frame.kind() {
                Kind::CallCompleted => return (frames, Some(End::close(CloseCode::Done, "call completed"))),
                kind if kind.ends_call() => return (frames, Some(End::close(CloseCode::Internal, "call failed"))),
                _ => {}
            }
        }
        (frames, None)
    }
}
