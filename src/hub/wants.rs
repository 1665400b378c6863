//! The kinds of frames that wake a reader.

use super::LiveKind;
use crate::protocol::event::Kind;

/// A set of kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wants(u8);

impl Wants {
    /// Number of kinds; the sequenced ones come first.
    pub(super) const KINDS: usize = 6;
    /// Number of kinds of sequenced events.
    pub(super) const SEQUENCED: usize = 4;

    /// `turn.final`, `turn.revised`.
    pub const TURNS: Self = Self(1);
    /// `insight.updated`, `insight.failed`.
    pub const INSIGHTS: Self = Self(1 << 1);
    /// The call's last event.
    pub const END: Self = Self(1 << 2);
    /// All other events of a call.
    pub const CALL: Self = Self(1 << 3);
    /// All sequenced events.
    pub const EVENTS: Self = Self(Self::TURNS.0 | Self::INSIGHTS.0 | Self::END.0 | Self::CALL.0);
    const PARTIALS: Self = Self(1 << 4);
    const DELTAS: Self = Self(1 << 5);
    /// Nothing.
    pub(super) const NONE: Self = Self(0);

    /// Union of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Adds live frames. These keep their place among the events, so all events are added too.
    #[must_use]
    pub fn and_live(self, partials: bool, deltas: bool) -> Self {
        let live = [(partials, Self::PARTIALS), (deltas, Self::DELTAS)];
        live.into_iter().filter(|(wanted, _)| *wanted).fold(self, |all, (_, kind)| all.and(kind).and(Self::EVENTS))
    }

    /// True if both have a kind in common.
    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Indices of the kinds.
    pub(super) fn places(self) -> impl Iterator<Item = usize> {
        (0..Self::KINDS).filter(move |place| self.0 & (1 << place) != 0)
    }
}

impl From<Kind> for Wants {
    fn from(kind: Kind) -> Self {
        match kind {
            kind if kind.is_turn() => Self::TURNS,
            kind if kind.is_insight() => Self::INSIGHTS,
            kind if kind.ends_call() => Self::END,
            _ => Self::CALL,
        }
    }
}

impl From<&LiveKind> for Wants {
    fn from(kind: &LiveKind) -> Self {
        match kind {
            LiveKind::Partial => Self::PARTIALS,
            LiveKind::Delta { .. } => Self::DELTAS,
        }
    }
}
