//! Compiled schemas, cached up to a total size in memory, and checks of answers against them. Large work runs on blocking
//! threads.
//!
//! Knows no vendor and no attempt.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;

use crate::base::budget::{self, Exceeded};
use crate::base::sync::lock;
use crate::gateway::code::Code;
use crate::gateway::error::GatewayError;
use crate::llm::repair::{self, REPAIRING};
use crate::llm::schema::{self, CHECKING, COMPILING, SchemaError, Validator, Verdict};

/// Maximum estimated memory of all cached schemas together, bytes.
const SCHEMA_CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Compiled schemas.
#[derive(Default)]
pub(in crate::gateway) struct Validators(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By the hash of the schema.
    by_hash: HashMap<u64, Entry>,
    /// Hashes by the address of a schema that `by_hash` keeps alive: an analysis uses the same one every time.
    by_address: HashMap<usize, u64>,
    /// Counts lookups; orders entries by last use.
    now: u64,
}

struct Entry {
    schema: Arc<Value>,
    validator: Validator,
    /// Value of `now` at its last use.
    used: u64,
}

impl Validators {
    /// Returns the compiled schema, from the cache if it is there.
    ///
    /// # Errors
    /// `too_complex` or `invalid_request`, with `response_format` as the parameter.
    ///
    /// # Cancel safety
    /// Safe.
    pub(in crate::gateway) async fn get(&self, schema: &Arc<Value>) -> Result<Validator, GatewayError> {
        let address = Arc::as_ptr(schema).addr();
        if let Some(validator) = self.lock().by_address(address) {
            return Ok(validator);
        }
        let mut hasher = DefaultHasher::new();
        schema.hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(validator) = self.lock().by_hash(hash, schema) {
            return Ok(validator);
        }
        let compiling = Arc::clone(schema);
        let work = schema::compiling_work(schema);
        let validator = match budget::run(work, COMPILING, move |_| Ok(Validator::compile(&compiling))).await {
            Ok(Ok(validator)) => validator,
            Ok(Err(SchemaError::TooComplex(exceeded))) | Err(exceeded) => {
                return Err(in_schema(too_complex("response_format: the schema is", exceeded)));
            }
            Ok(Err(error)) => {
                return Err(in_schema(GatewayError::new(Code::InvalidRequest, format!("response_format: {error}"))));
            }
        };
        self.lock().insert(hash, schema, &validator);
        Ok(validator)
    }

    /// Checks `text` against the schema, and returns it with the verdict.
    ///
    /// # Errors
    /// `too_complex` if the check is over a limit.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub(in crate::gateway) async fn check(
        &self,
        validator: &Validator,
        text: String,
    ) -> Result<(String, Verdict), GatewayError> {
        let (work, checking) = (validator.work(&text), validator.clone());
        let checked = budget::run(work, CHECKING, move |budget| {
            let verdict = checking.check(&text, budget)?;
            Ok((text, verdict))
        })
        .await;
        if validator.grows() {
            self.lock().shrink();
        }
        checked.map_err(|exceeded| too_complex("checking the answer under the schema is", exceeded))
    }

    /// Estimated memory of all cached schemas, bytes.
    pub(in crate::gateway) fn bytes(&self) -> u64 {
        self.lock().bytes()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        lock(&self.0)
    }
}

impl Known {
    fn by_address(&mut self, address: usize) -> Option<Validator> {
        let hash = self.by_address.get(&address)?;
        let entry = self.by_hash.get_mut(hash)?;
        self.now += 1;
        entry.used = self.now;
        Some(entry.validator.clone())
    }

    fn by_hash(&mut self, hash: u64, schema: &Arc<Value>) -> Option<Validator> {
        let entry = self.by_hash.get_mut(&hash).filter(|entry| entry.schema == *schema)?;
        self.now += 1;
        entry.used = self.now;
        Some(entry.validator.clone())
    }

    fn insert(&mut self, hash: u64, schema: &Arc<Value>, validator: &Validator) {
        self.now += 1;
        let entry = Entry { schema: Arc::clone(schema), validator: validator.clone(), used: self.now };
        if let Some(replaced) = self.by_hash.insert(hash, entry) {
            self.by_address.remove(&Arc::as_ptr(&replaced.schema).addr());
        }
        self.by_address.insert(Arc::as_ptr(schema).addr(), hash);
        self.shrink();
    }

    fn bytes(&self) -> u64 {
        self.by_hash.values().map(|entry| entry.validator.footprint()).sum()
    }

    /// Evicts the least recently used entries until the others fit.
    fn shrink(&mut self) {
        let mut bytes = self.bytes();
        while bytes > SCHEMA_CACHE_BYTES {
            let Some(oldest) = self.by_hash.iter().min_by_key(|(_, entry)| entry.used).map(|(hash, _)| *hash) else {
                return;
            };
            if let Some(entry) = self.by_hash.remove(&oldest) {
                self.by_address.remove(&Arc::as_ptr(&entry.schema).addr());
                bytes = bytes.saturating_sub(entry.validator.footprint());
            }
        }
    }
}

/// Reads an answer that is JSON, or nearly; `None` if it is not.
///
/// # Errors
/// `too_complex` if reading it is over a limit.
///
/// # Cancel safety
/// Safe: nothing is changed.
pub(in crate::gateway) async fn parse(text: &str) -> Result<Option<Value>, GatewayError> {
    let (work, text) = (repair::work(text), text.to_owned());
    let read = budget::run(work, REPAIRING, move |budget| repair::parse(&text, budget)).await;
    let read = read.map_err(|exceeded| too_complex("reading the answer is", exceeded))?;
    Ok(read.map(|(value, _)| value))
}

fn in_schema(error: GatewayError) -> GatewayError {
    error.with_param(Some("response_format".to_owned()))
}

fn too_complex(what: &str, exceeded: Exceeded) -> GatewayError {
    let error = GatewayError::new(exceeded.into(), format!("{what} {exceeded}"));
    if matches!(exceeded, Exceeded::Busy(_)) { error.temporarily() } else { error }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(name: &str) -> Arc<Value> {
        let members: serde_json::Map<String, Value> =
            (0..300).map(|member| (format!("m{member}"), json!({}))).collect();
        let mut schema = json!({"properties": members});
        schema["properties"][name] = json!({"type": "string", "pattern": "^[ab]*a[ab]{8}$"});
        Arc::new(schema)
    }

    fn kept(validators: &Validators) -> (usize, usize, u64) {
        let known = validators.lock();
        (known.by_hash.len(), known.by_address.len(), known.bytes())
    }

    #[tokio::test]
    async fn cache_over_its_size_evicts_the_least_recently_used() {
        let validators = Validators::default();
        let first = schema("first");
        validators.get(&first).await.expect("compiled");
        let one = kept(&validators).2;
        let adapt = usize::try_from(SCHEMA_CACHE_BYTES / one).expect("a number");
        for number in 0..adapt + 20 {
            validators.get(&schema(&format!("{number:05}"))).await.expect("compiled");
            // An entry that is used all the time stays in the cache.
            validators.get(&first).await.expect("compiled");
        }
        let (schemas, addresses, bytes) = kept(&validators);
        assert!(bytes <= SCHEMA_CACHE_BYTES && schemas >= adapt - 1, "{schemas} schemas of {one} bytes: {bytes}");
        assert_eq!(schemas, addresses);
        assert!(validators.lock().by_address(Arc::as_ptr(&first).addr()).is_some());
        assert!(
            validators.lock().by_hash.values().all(|entry| *entry.schema != *schema("00000")),
            "the oldest is gone"
        );
    }

    #[tokio::test]
    async fn cached_schema_that_grows_counts_with_its_growth() {
        let validators = Validators::default();
        let grown = schema("a");
        let validator = validators.get(&grown).await.expect("compiled");
        let before = kept(&validators).2;
        let text = json!({"a": "ab".repeat(2_000)}).to_string();
        let (back, _) = validators.check(&validator, text.clone()).await.expect("checked");
        assert_eq!(back, text);
        let after = kept(&validators).2;
        assert!(after > before + 4_000 && after <= before + 2 * 1024 * 1024, "{before} {after}");
    }

    #[tokio::test]
    async fn schema_over_a_limit_is_refused_by_name() {
        let mut definitions = serde_json::Map::new();
        for number in 0..30 {
            let next = json!({"$ref": format!("#/$defs/d{}", number + 1)});
            definitions.insert(format!("d{number}"), json!({"allOf": [next, next]}));
        }
        definitions.insert("d30".to_owned(), json!({}));
        let doubling = Arc::new(json!({"$ref": "#/$defs/d0", "$defs": definitions}));
        let error = Validators::default().get(&doubling).await.map(|_| ()).expect_err("refused");
        assert_eq!(
            (error.code(), error.param(), error.temporary()),
            (Code::TooComplex, Some("response_format"), false)
        );
        assert!(error.message().contains("schema_"), "{}", error.message());
    }
}
