//! The query of `GET /v1/ingest`.

use std::collections::BTreeMap;

use super::results::Results;
use crate::analysis::Registry as Analyses;
use crate::base::names;
use crate::base::surrogates;
use crate::call::bounds::MAX_TIME_MS;
use crate::call::config::LimitsConfig;
use crate::protocol::{ErrorCode, ErrorFrame};
use crate::stt::{self, Dialect};
use crate::types::{CallId, JsonMap, StreamId};

/// The parsed query.
pub(super) struct Params {
    pub(super) call: CallId,
    pub(super) stream: StreamId,
    pub(super) dialect: &'static dyn Dialect,
    /// The requested analyses that exist; `None` if the query does not name any, empty if none are wanted.
    pub(super) analyses: Option<Vec<String>>,
    pub(super) results: Results,
    pub(super) offset_ms: Option<u64>,
    pub(super) meta: JsonMap,
    /// The chosen variants that exist, by route.
    pub(super) variants: BTreeMap<String, String>,
    /// Non-fatal errors: names of analyses and variants that do not exist.
    pub(super) errors: Vec<ErrorFrame>,
}

fn bad(name: &str, message: impl std::fmt::Display) -> ErrorFrame {
    ErrorFrame::new(ErrorCode::BadParameter, format!("{name}: {message}")).fatal()
}

/// Parses the query.
///
/// # Errors
/// The first parameter that is wrong; the error is fatal, and the socket is closed with 4400.
pub(super) fn read(
    query: &str,
    analyses: &Analyses,
    variants: CheckVariant<'_>,
    limits: &LimitsConfig,
) -> Result<Params, ErrorFrame> {
    let mut params = Params {
        call: CallId::mint(),
        stream: StreamId::mint(),
        dialect: stt::dialect("sidetone").ok_or_else(|| bad("dialect", "the sidetone dialect is missing"))?,
        analyses: None,
        results: Results::Insights,
        offset_ms: None,
        meta: JsonMap::new(),
        variants: BTreeMap::new(),
        errors: Vec::new(),
    };
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "call_id" => params.call = CallId::parse(&value).map_err(|error| bad("call_id", error))?,
            "stream_id" => params.stream = StreamId::parse(&value).map_err(|error| bad("stream_id", error))?,
            "dialect" => {
                params.dialect = stt::dialect(&value).ok_or_else(|| {
                    let known: Vec<&str> = stt::DIALECTS.iter().map(|dialect| dialect.name()).collect();
                    bad("dialect", names::unknown("dialect", &value, &known))
                })?;
            }
            "analyses" => read_analyses(&value, analyses, &mut params),
            "results" => {
                params.results = match &*value {
                    "none" => Results::None,
                    "insights" => Results::Insights,
                    "all" => Results::All,
                    other => {
                        return Err(bad("results", format_args!("expected none, insights or all, found {other:?}")));
                    }
                }
            }
            "offset_ms" => {
                let offset = value.parse().ok().filter(|offset| *offset <= MAX_TIME_MS);
                let expected =
                    || format!("expected an integer from 0 to {MAX_TIME_MS}, found {}", names::shown(&value));
                params.offset_ms = Some(offset.ok_or_else(|| bad("offset_ms", expected()))?);
            }
            "meta" => params.meta = read_meta(&value, limits)?,
            "variants" => {
                let chosen = serde_json::from_str(&value).map_err(|_| {
                    bad("variants", "expected a JSON object of route to variant, such as {\"summary\":\"b\"}")
                })?;
                let (known, errors) = known_variants(chosen, variants);
                params.variants = known;
                params.errors.extend(errors);
            }
            // Unknown parameters are ignored, as unknown fields are.
            _ => {}
        }
    }
    Ok(params)
}

fn read_analyses(value: &str, analyses: &Analyses, params: &mut Params) {
    let names = value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let (known, unknown) = known_analyses(names, analyses);
    params.analyses.get_or_insert_default().extend(known);
    params.errors.extend(unknown);
}

/// The named analyses that exist, and an error for each of the others.
pub(super) fn known_analyses(names: Vec<String>, analyses: &Analyses) -> (Vec<String>, Vec<ErrorFrame>) {
    let (known, unknown): (Vec<String>, Vec<String>) = names.into_iter().partition(|name| analyses.get(name).is_some());
    let error = |name: String| ErrorFrame::new(ErrorCode::UnknownAnalysis, analyses.unknown(&name));
    (known, unknown.into_iter().map(error).collect())
}

/// Checks that a route has a variant; the error lists the variants that exist.
pub(super) type CheckVariant<'a> = &'a dyn Fn(&str, &str) -> Result<(), String>;

/// The chosen variants that exist, and an error for each one that does not.
pub(super) fn known_variants(
    chosen: BTreeMap<String, String>,
    check: CheckVariant<'_>,
) -> (BTreeMap<String, String>, Vec<ErrorFrame>) {
    let mut errors = Vec::new();
    let mut known = chosen;
    known.retain(|route, variant| match check(route, variant) {
        Ok(()) => true,
        Err(message) => {
            errors.push(ErrorFrame::new(ErrorCode::UnknownVariant, format!("variants: {message}")));
            false
        }
    });
    (known, errors)
}

fn read_meta(value: &str, limits: &LimitsConfig) -> Result<JsonMap, ErrorFrame> {
    if value.len() > limits.meta_bytes {
        return Err(bad(
            "meta",
            format_args!("{} bytes are over the limit of {} (limits.meta_bytes)", value.len(), limits.meta_bytes),
        ));
    }
    surrogates::from_str(value).map_err(|error| {
        bad("meta", format_args!("expected a JSON object (line {}, column {})", error.line(), error.column()))
    })
}
