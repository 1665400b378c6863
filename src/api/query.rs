//! Query parameters, each read with an error that names it.

use std::fmt::Display;
use std::str::FromStr;

use super::error::ApiError;

/// The parameters of one request.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string; unknown parameters are ignored.
    pub(super) fn new(query: Option<&str>) -> Self {
        Self(url::form_urlencoded::parse(query.unwrap_or("").as_bytes()).into_owned().collect())
    }

    /// The text of `name`, if it is there and not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// The value of `name` as a number.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub(super) fn number<T: FromStr + Display>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.text(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::bad_request("bad_parameter", format!("{name}: expected an integer >= 0, found {text:?}"))
                })
            })
            .transpose()
    }

    /// The value of `limit`, from 1 to `most`; `default` if absent.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub(super) fn limit(&self, default: usize, most: usize) -> Result<usize, ApiError> {
        let limit = self.number("limit")?.unwrap_or(default);
        if (1..=most).contains(&limit) {
            Ok(limit)
        } else {
            Err(ApiError::bad_request("bad_parameter", format!("limit: expected 1 to {most}, found {limit}")))
        }
    }
}
