//! The query of `GET /v3/ws`: the daemon's own parameters are removed, and the rest is sent upstream byte for byte.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::params::{CheckVariant, known_analyses, known_variants};
use crate::analysis::{Question, Registry as Analyses};
use crate::base::surrogates;
use crate::protocol::{ErrorCode, ErrorFrame};
use crate::types::{CallId, JsonMap, StreamId};

/// The query, split into the daemon's parameters and the vendor's.
#[derive(Debug, Default)]
pub(super) struct Query {
    /// The query for the vendor, unchanged but for `token`, which is removed.
    pub(super) upstream: String,
    /// The query for the vendor with `token` in place of the key, for a token of the vendor.
    pub(super) upstream_with_token: String,
    /// A temporary token, unchanged.
    pub(super) token: Option<String>,
    /// The in-stream question, or the error in it.
    pub(super) llm_gateway: Option<Result<Question, String>>,
    /// The daemon's own parameter.
    pub(super) sidetone: Sidetone,
    /// Errors in it. The session continues without the invalid parts.
    pub(super) errors: Vec<ErrorFrame>,
    /// Set if insights are sent to the client's socket. Without `sidetone`, a client gets only the vendor's frames.
    pub(super) insights: bool,
    /// Set if the vendor ends each turn twice: unformatted, then formatted.
    pub(super) formats: bool,
}

/// `sidetone={"call_id","stream_id","analyses","variants","meta","results"}`.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Sidetone {
    pub(super) call_id: Option<CallId>,
    pub(super) stream_id: Option<StreamId>,
    /// Analyses that the call runs; `None` for the configured default.
    pub(super) analyses: Option<Vec<String>>,
    /// Chosen variants for the call's jobs, by route.
    #[serde(default)]
    pub(super) variants: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) meta: JsonMap,
    /// `none`, `insights` (the default, as on ingest) or `all`.
    pub(super) results: Option<String>,
}

impl Sidetone {
    /// Returns true if insights are sent to the client's socket, for a client that sent this parameter.
    fn wants_insights(&self) -> Result<bool, String> {
        match self.results.as_deref() {
            None | Some("insights" | "all") => Ok(true),
            Some("none") => Ok(false),
            Some(_) => Err("sidetone.results: expected none, insights or all; none is used".to_owned()),
        }
    }

    /// Removes the names of analyses and variants that do not exist.
    fn check(&mut self, analyses: &Analyses, check: CheckVariant<'_>) -> Vec<ErrorFrame> {
        let (variants, mut errors) = known_variants(std::mem::take(&mut self.variants), check);
        self.variants = variants;
        if let Some(names) = self.analyses.take() {
            let (known, unknown) = known_analyses(names, analyses);
            self.analyses = Some(known);
            errors.extend(unknown);
        }
        errors
    }
}

/// Splits the query.
pub(super) fn read(query: &str, analyses: &Analyses, variants: CheckVariant<'_>) -> Query {
    let bad = |message| ErrorFrame::new(ErrorCode::BadParameter, message);
    let mut read = Query::default();
    let (mut upstream, mut with_token): (Vec<&str>, Vec<&str>) = Default::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = url::form_urlencoded::parse(pair.as_bytes()).next() else { continue };
        match &*name {
            "token" => {
                read.token = Some(value.into_owned());
                with_token.push(pair);
            }
            "llm_gateway" => {
                read.llm_gateway = Some(Question::read(&value));
            }
            "sidetone" => match surrogates::from_str(&value) {
                Ok(sidetone) => {
                    read.sidetone = sidetone;
                    read.errors.extend(read.sidetone.check(analyses, variants));
                    match read.sidetone.wants_insights() {
                        Ok(wanted) => read.insights = wanted,
                        Err(message) => read.errors.push(bad(message)),
                    }
                }
                Err(error) => {
                    // Column and category only: the error's text may quote what the client says about the call.
                    let message = format!(
                        "sidetone: expected \
                         {{\"call_id\",\"stream_id\",\"analyses\",\"variants\",\"meta\",\"results\"}}, but it is \
                         something else at column {}; the parameter is ignored",
                        error.column()
                    );
                    read.errors.push(bad(message));
                }
            },
            other => {
                if other == "format_turns" {
                    read.formats = matches!(value.to_ascii_lowercase().as_str(), "true" | "1");
                }
                upstream.push(pair);
                with_token.push(pair);
            }
        }
    }
    read.upstream = upstream.join("&");
    read.upstream_with_token = with_token.join("&");
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(query: &str) -> Query {
        let known = |route: &str, variant: &str| match (route, variant) {
            ("summary", "b") => Ok(()),
            _ => Err(format!("no variant {variant:?} of route {route:?}; there are: b")),
        };
        read(query, &Analyses::builtin(), &known)
    }

    #[test]
    fn unknown_variants_are_reported_and_left_out() {
        let named = query(r#"sidetone={"variants":{"summary":"b","other":"c"}}"#);
        assert_eq!(named.sidetone.variants, BTreeMap::from([("summary".to_owned(), "b".to_owned())]));
        assert_eq!(named.errors.len(), 1);
        assert_eq!(named.errors[0].code, ErrorCode::UnknownVariant);
        assert!(named.errors[0].message.ends_with("there are: b"), "{}", named.errors[0].message);
    }

    #[test]
    fn other_parameters_pass_byte_for_byte() {
        let query = query(
            "token=t%2Fu&sample_rate=16000&keyterms_prompt=%5B%22a+b%22%5D&sidetone=%7B%22call_id%22%3A%22c_1%22%7D&format_turns=True&llm_gateway=%7B%22model%22%3A%22fast%22%2C%22messages%22%3A%5B%5D%2C%22max_tokens%22%3A5%7D&x=%zz",
        );
        assert_eq!(query.upstream, "sample_rate=16000&keyterms_prompt=%5B%22a+b%22%5D&format_turns=True&x=%zz");
        assert_eq!(query.upstream_with_token, format!("token=t%2Fu&{}", query.upstream));
        assert_eq!(query.token.as_deref(), Some("t/u"));
        assert!(query.formats && query.insights);
        assert_eq!(query.sidetone.call_id.expect("call").as_str(), "c_1");
        let question = query.llm_gateway.expect("asked").expect("valid");
        assert_eq!(question.model, "fast");
    }

    #[test]
    fn errors_of_the_parameter_are_kept_until_the_socket_opens() {
        let bad = query("llm_gateway=nonsense&sidetone=%7B%22call_id%22%3A%22a%2Fb%22%7D");
        assert!(bad.llm_gateway.is_some_and(|question| question.is_err()));
        assert_eq!(bad.errors[0].code, ErrorCode::BadParameter);
        let unnamed = query("sidetone=%7B%22call_id%22%3A%22a%40b%22%7D");
        let message = &unnamed.errors[0].message;
        assert!(message.contains("\"call_id\"") && message.contains("column") && !message.contains("a@b"), "{message}");
        assert!(!bad.insights && !query("sample_rate=16000").insights);
        let results = |wanted: &str| query(&format!("sidetone=%7B%22results%22%3A%22{wanted}%22%7D"));
        assert!(results("all").insights && !results("none").insights);
        assert!(!results("some").insights && !results("some").errors.is_empty());
    }

    #[test]
    fn unknown_analyses_are_reported_and_an_empty_list_means_none() {
        let analyses = |names: &str| query(&format!("sidetone={{\"analyses\":{names}}}"));
        let named = analyses(r#"["summary","moood"]"#);
        assert_eq!(named.sidetone.analyses, Some(vec!["summary".to_owned()]));
        assert_eq!(named.errors.len(), 1);
        assert!(named.errors[0].message.contains("moood") && named.errors[0].message.contains("sentiment"));
        assert_eq!(analyses("[]").sidetone.analyses, Some(Vec::new()));
        assert_eq!(analyses("null").sidetone.analyses, None);
    }
}
