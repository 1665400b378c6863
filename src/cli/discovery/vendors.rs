//! The vendors whose usual environment variables are checked, one per line. Data only.

use super::{Found, Price};

/// A vendor with an API key, and the model that is used unless another is configured: a small, fast one that answers
/// under a JSON schema.
#[derive(Debug)]
pub(super) struct Vendor {
    /// Name of the provider, and of the endpoint in the configuration.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// Variables that may contain the key; the first that is set counts.
    pub(super) keys: &'static [&'static str],
    /// Variables that may contain the base URL, as in the vendor's own SDK.
    pub(super) base_urls: &'static [&'static str],
    /// Appended to the base URL from such a variable: the vendor's SDK adds this path, the gateway does not.
    pub(super) path: &'static str,
    pub(super) model: &'static str,
    pub(super) price: Price,
}

impl Vendor {
    const fn new(
        (name, title): (&'static str, &'static str),
        keys: &'static [&'static str],
        base_urls: &'static [&'static str],
        path: &'static str,
        (model, input, output): (&'static str, f64, f64),
    ) -> Self {
        Self { name, title, keys, base_urls, path, model, price: Price { input, output } }
    }

    /// This vendor as an endpoint, with its own base URL and the first of its key variables.
    pub(super) fn endpoint(&self) -> Found {
        Found {
            name: self.name,
            title: self.title,
            base_url: None,
            redirected_by: None,
            key: self.keys.first().copied(),
            model: self.model.to_owned(),
            price: Some(self.price),
            slow: false,
        }
    }
}

/// Date of the prices below. Vendors change their prices, and the spending limit is computed from these.
pub(super) const PRICES_OF: &str = "autumn 2026";

/// Every vendor, in order of preference. Prices are US dollars per million tokens of input and of output, as publicly
/// listed; where several are listed (regions, tiers, dates), the highest.
#[rustfmt::skip]
pub(super) static VENDORS: &[Vendor] = &[
    Vendor::new(("openai", "OpenAI"), &["OPENAI_API_KEY"], &["OPENAI_BASE_URL", "OPENAI_API_BASE"], "", ("gpt-4.1-mini", 0.40, 1.60)),
    Vendor::new(("anthropic", "Anthropic"), &["ANTHROPIC_API_KEY"], &["ANTHROPIC_BASE_URL"], "", ("claude-haiku-4-5", 1.00, 5.00)),
    Vendor::new(("google", "Google Gemini"), &["GEMINI_API_KEY", "GOOGLE_API_KEY"], &["GOOGLE_GEMINI_BASE_URL"], "", ("gemini-3.1-flash-lite", 0.25, 1.50)),
    Vendor::new(("groq", "Groq"), &["GROQ_API_KEY"], &["GROQ_BASE_URL"], "/openai/v1", ("openai/gpt-oss-20b", 0.10, 0.50)),
    Vendor::new(("mistral", "Mistral"), &["MISTRAL_API_KEY"], &["MISTRAL_BASE_URL"], "", ("mistral-small-latest", 0.15, 0.60)),
    Vendor::new(("cohere", "Cohere"), &["CO_API_KEY", "COHERE_API_KEY"], &["CO_API_URL"], "", ("command-r7b-12-2024", 0.0375, 0.15)),
    Vendor::new(("together", "Together"), &["TOGETHER_API_KEY"], &["TOGETHER_BASE_URL"], "", ("openai/gpt-oss-20b", 0.05, 0.20)),
    Vendor::new(("openrouter", "OpenRouter"), &["OPENROUTER_API_KEY"], &["OPENROUTER_BASE_URL"], "", ("openai/gpt-4.1-mini", 0.40, 1.60)),
    Vendor::new(("assemblyai", "AssemblyAI's LLM Gateway"), &["ASSEMBLYAI_API_KEY"], &[], "", ("gemini-3.1-flash-lite", 0.275, 1.65)),
];
