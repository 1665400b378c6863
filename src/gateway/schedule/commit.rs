//! What follows for the endpoint and the request when an attempt reaches its commit point or fails before it.
//!
//! Does not know which candidate is asked next.

use tokio::time::Instant;

use super::in_flight::{InFlight, Sent};
use super::run::Run;
use super::shared::Shared;
use crate::gateway::attempt::context::Context;
use crate::gateway::attempt::opened::Opened;
use crate::llm::{ChatRequest, ResponseFormat};

impl<'a> Run<'a> {
    /// The parameters of an attempt with `request`.
    pub(super) fn context<'r>(&self, request: &'r ChatRequest) -> Context<'r>
    where
        'a: 'r,
    {
        let shared: &'a Shared = self.shared;
        Context {
            client: &shared.client,
            timeouts: self.resolved.timeouts,
            request,
            deadline: self.deadline,
            plain_header: self.plain_header(),
            keep_raw: self.keep_raw,
            one_call: self.one_call,
            answering: self.answering,
        }
    }

    /// Handles an attempt that reached its commit point, or failed before it.
    pub(super) fn complete(&mut self, in_flight: InFlight<'a, '_>, sent: Sent) -> Option<Opened> {
        let InFlight { position, remote, request, record, mut probe, mode_step, schema_mode, wire: _ } = in_flight;
        match sent {
            Ok(start) => {
                probe.pending = false;
                if remote.breaker.succeeded() {
                    self.show_breaker(&remote);
                }
                let progress = &mut self.candidates[position];
                if mode_step == 0 {
                    if has_schema(&request) {
                        remote.prove_schema_mode();
                    }
                } else if !progress.schema_doubtful || remote.doubt_schema_mode() {
                    remote.learn_schema_mode(schema_mode);
                    progress.schema_step = 0;
                }
                self.current = position;
                Some(Opened::new(start, record))
            }
            Err(failure) => {
                record.fail(&failure);
                let doubtful = failure.status == Some(500);
                let step = has_schema(&request)
                    && failure.maybe_schema
                    && (!doubtful || remote.schema_mode_in_question())
                    && mode_step + 1 < remote.schema_modes().len();
                self.candidates[position].schema_doubtful |= step && doubtful;
                // Only a failure that the breaker counts decides the probe; after any other, the probe is given back.
                probe.pending &= !failure.counts || step;
                self.failed(position, &remote, failure, step);
                None
            }
        }
    }

    /// Deadline for the header of a plain answer. Such an answer arrives whole, after all of its tokens: its header may
    /// take a fair share of the time that is left.
    fn plain_header(&self) -> Instant {
        let now = Instant::now();
        let left = self.deadline.saturating_duration_since(now);
        let fresh = self.candidates.iter().filter(|progress| !progress.dead && progress.tries == 0).count();
        let share = left / u32::try_from(fresh + 1).unwrap_or(u32::MAX);
        self.deadline.min(now + share.max(self.resolved.timeouts.header))
    }
}

fn has_schema(request: &ChatRequest) -> bool {
    matches!(request.response_format, Some(ResponseFormat::JsonSchema { .. }))
}
