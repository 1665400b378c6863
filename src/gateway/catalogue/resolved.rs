//! The result of resolving a name: candidates in failover order, and how they are asked.
//!
//! Knows no other names.

use std::sync::Arc;

use super::config::{Balance, Timeouts};
use super::endpoint::EndpointModel;
use crate::base::tokens::Fit;
use crate::llm::{SchemaMode, tokens};
use crate::types::JsonMap;
use crate::types::provider::LOCAL;

/// The model that answers a request: a variant of a route, or a model asked by name. Callers that need the choice to
/// stay the same keep it.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The route, or the name that was asked for.
    pub route: Arc<str>,
    /// The route's variant; `default` where there is no choice.
    pub variant: Arc<str>,
    /// The logical model, or `endpoint/vendor-model`.
    pub model: Arc<str>,
    /// Version of the prompt.
    pub prompt: Option<Arc<str>>,
    /// Parameters that override the request's.
    pub params: JsonMap,
    pub(in crate::gateway) candidates: Vec<Candidate>,
    pub(in crate::gateway) timeouts: Timeouts,
    pub(in crate::gateway) retries: u32,
    pub(in crate::gateway) balance: Balance,
    /// Quantile of an endpoint's own times to the first token; a second attempt is made after that time.
    pub(in crate::gateway) hedge: Option<f64>,
}

impl Resolved {
    /// Returns true if the only candidate is the embedded provider.
    pub fn local(&self) -> bool {
        self.candidates.iter().all(|candidate| matches!(candidate, Candidate::Local))
    }

    /// The resolved model without retries: each candidate is asked only once.
    #[must_use]
    pub fn asked_once(&self) -> Self {
        Self { retries: 0, ..self.clone() }
    }

    /// The smallest known context length of the candidates, in tokens, prompt and answer together; `None` if none is
    /// known.
    pub fn context_length(&self) -> Option<u64> {
        let lengths = self.candidates.iter().filter_map(|candidate| match candidate {
            Candidate::Local => None,
            Candidate::Remote(remote) => remote.traits().context_length,
        });
        lengths.min()
    }

    /// The limit for a conversation in a prompt. The model's context also holds the answer, of at most `answer` tokens
    /// (`None`: not limited), and the rest of the prompt, of `rest` estimated tokens.
    pub fn fit(&self, answer: Option<u64>, rest: u64) -> Fit {
        let ratios = self.candidates.iter().filter_map(|candidate| match candidate {
            Candidate::Local => None,
            Candidate::Remote(remote) => Some(remote.token_ratio()),
        });
        let ratio = ratios.max().unwrap_or_default();
        let room = self.context_length().map(|context| {
            let answer = answer.unwrap_or(tokens::ANSWER.min(context / 4));
            let left = context.saturating_sub(answer.saturating_add(ratio.apply(rest)));
            // A quarter is left free: the next text may have more tokens for its length than the texts from which the
            // ratio was learned.
            left / 4 * 3
        });
        Fit::new(ratio, room)
    }

    /// Returns true if the first candidate is asked for the schema only in its prompt: the answer must be read to its
    /// end, and perhaps repaired, before any of it can be passed on.
    pub(in crate::gateway) fn asks_for_schemas_in_prompts(&self) -> bool {
        self.candidates.first().is_some_and(|candidate| match candidate {
            Candidate::Local => false,
            Candidate::Remote(remote) => remote.schema_modes().first() == Some(&SchemaMode::Prompt),
        })
    }

    /// The embedded provider.
    pub(in crate::gateway) fn embedded() -> Self {
        let local: Arc<str> = Arc::from(LOCAL);
        Self {
            route: Arc::clone(&local),
            variant: Arc::from("default"),
            model: local,
            prompt: None,
            params: JsonMap::new(),
            candidates: vec![Candidate::Local],
            timeouts: Timeouts::default(),
            retries: 0,
            balance: Balance::Order,
            hedge: None,
        }
    }
}

/// Where a request may be sent.
#[derive(Debug, Clone)]
pub(in crate::gateway) enum Candidate {
    /// The embedded provider.
    Local,
    Remote(Arc<EndpointModel>),
}

impl std::fmt::Display for Candidate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local => formatter.write_str(LOCAL),
            Self::Remote(remote) => write!(formatter, "{}/{}", remote.endpoint.name, remote.vendor_model),
        }
    }
}
