//! Secrets: where they come from, and whether a text repeats one.
//!
//! Knows no configuration except its folder, and no use of a secret.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;

/// A text that contains this many bytes of a secret's start counts as repeating it.
const TELLING: usize = 8;

/// A secret, and its source (which may be shown).
#[derive(Clone)]
pub struct Secret {
    /// `env:VAR` or `file:PATH`.
    pub source: String,
    /// The value; redacted in `Debug`.
    pub value: SecretString,
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Secret({})", self.source)
    }
}

/// Returns true if a text names the source of a secret instead of being one.
pub fn is_named(text: &str) -> bool {
    text.starts_with("env:") || text.starts_with("file:")
}

/// Resolves `env:VAR` or `file:PATH`; a relative path is resolved against `folder`. White space around the value is
/// removed.
///
/// # Errors
/// What is wrong with the source or with its contents; never the value.
pub fn resolve(source: &str, folder: &Path) -> Result<SecretString, String> {
    let value = if let Some(name) = source.strip_prefix("env:") {
        std::env::var(name)
            .map_err(|_| format!("environment variable {name} is not set; export it, or use \"file:PATH\""))?
    } else if let Some(path) = source.strip_prefix("file:") {
        let path = folder.join(path);
        std::fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?
    } else {
        return Err("expected \"env:VAR\" or \"file:PATH\" (the file itself never contains a secret)".to_owned());
    };
    let value = value.trim();
    if value.is_empty() {
        return Err(format!("{source} is empty"));
    }
    Ok(SecretString::from(value.to_owned()))
}

/// The part of a URL that may be shown: without user, path and query, which may contain a key.
pub fn outline(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(url) => format!("\"{}://{}/…\"", url.scheme(), url.host_str().unwrap_or_default()),
        Err(error) => format!("no URL ({error})"),
    }
}

/// Returns true if `text` contains the start of `secret`: raw, percent-encoded, or in Base64 at any of its three
/// alignments.
pub fn repeats(text: &str, secret: &str) -> bool {
    let bytes = secret.as_bytes();
    let head = &bytes[..bytes.len().min(TELLING)];
    let raw = String::from_utf8_lossy(head);
    let percent = percent_encoding::percent_encode(head, percent_encoding::NON_ALPHANUMERIC).to_string();
    let in_base64 = bytes.windows(6).take(3).any(|part| {
        let encoded = STANDARD.encode(part);
        text.contains(&encoded) || text.contains(&encoded.replace('+', "-").replace('/', "_"))
    });
    text.contains(&*raw) || text.contains(&percent) || in_base64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_spelling() {
        let secret = "sk-oai/7h+Jk=LpQw";
        for text in [
            "key sk-oai/7h+Jk=LpQw.",
            "key sk-oai/7***",
            "?key=sk%2Doai%2F7h%2BJk",
            "Basic c2stb2FpLzdoK0prPUxwUXc=",
            "Basic OnNrLW9haS83aCtKaz1McFF3",
            "Basic Ojpzay1vYWkvN2grSms9THBRdw==",
        ] {
            assert!(repeats(text, secret), "{text}");
        }
        assert!(!repeats("sk-oai is no key", secret));
    }

    #[test]
    fn of_a_url_no_more_than_its_host_is_shown() {
        assert_eq!(outline("http://me:pass@h.example:1/hook/s3cret?key=s3cret"), "\"http://h.example/…\"");
        assert_eq!(outline("s3cret"), "no URL (relative URL without a base)");
    }

    #[test]
    fn a_file_is_looked_for_in_the_folder() {
        use secrecy::ExposeSecret as _;
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("key"), "  s3cret\n").expect("write");
        let whole = format!("file:{}", folder.path().join("key").display());
        for source in ["file:key", "file:./key", whole.as_str()] {
            assert_eq!(resolve(source, folder.path()).expect("a secret").expose_secret(), "s3cret", "{source}");
        }
        let missing = resolve("file:none", folder.path()).expect_err("no such file");
        assert!(missing.contains(&folder.path().join("none").display().to_string()), "{missing}");
        let plain = resolve("s3cret", folder.path()).expect_err("a value");
        assert!(!plain.contains("s3cret"), "{plain}");
    }
}
