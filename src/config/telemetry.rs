//! `[telemetry]`: where spans are sent. The daemon sends them only if it was built with the cargo feature `otel`.

use toml::Value;
use url::Url;

use crate::base::secret::outline;
use crate::base::settings::{Problems, Section};

/// `[telemetry]`
#[derive(Debug, Clone, Default)]
pub struct TelemetryConfig {
    /// URL that accepts OTLP over HTTP, with its path; `None` = no spans.
    pub otlp_endpoint: Option<Url>,
}

impl TelemetryConfig {
    /// Reads the section.
    pub fn read(value: Option<Value>, problems: &mut Problems) -> Self {
        let mut section = Section::new("telemetry", value, problems);
        let text = section.string("otlp_endpoint");
        let mut otlp_endpoint = None;
        if let Some(text) = text {
            match Url::parse(&text) {
                // A password would not be sent, and would be shown.
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() && url.password().is_none() => {
                    otlp_endpoint = Some(with_path(url));
                }
                _ => {
                    let message = format!("expected an http or https URL without a password, found {}", outline(&text));
                    section.problem("otlp_endpoint", message);
                }
            }
            if !cfg!(feature = "otel") {
                let message = "this daemon was built without OpenTelemetry; build it with `--features otel`, or \
                    remove this key";
                section.problem("otlp_endpoint", message);
            }
        }
        section.finish();
        Self { otlp_endpoint }
    }
}

/// Completes a collector's base URL with the path for traces.
fn with_path(mut url: Url) -> Url {
    if url.path() == "/" {
        url.set_path("/v1/traces");
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_gets_the_path_of_traces() {
        let path = |text: &str| with_path(Url::parse(text).expect("URL")).to_string();
        assert_eq!(path("http://127.0.0.1:4318"), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(path("https://otel.example.com/custom"), "https://otel.example.com/custom");
    }
}
