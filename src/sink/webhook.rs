//! `kind = "webhook"`: posts events, in order, signed.
//!
//! One request at a time. A 2xx answer accepts it. After 408, 429, 5xx or no answer, it is repeated until it is
//! accepted or gets another answer; after any other answer it is tried a few times, then its events become dead letters
//! and the next ones are sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::feed::Piece;
use super::{Delivery, Kind, Sink, dead};
use crate::base::backoff::Backoff;
use crate::base::http::post::{Answer, PostError, Poster};
use crate::base::mac;
use crate::base::secret::Secret;
use crate::base::settings::Section;
use crate::base::time::unix_ms;

const SIGNATURE: HeaderName = HeaderName::from_static("sidetone-signature");
const EVENT_ID: HeaderName = HeaderName::from_static("sidetone-event-id");
/// Maximum of `batch`.
const MAX_BATCH: u64 = 1000;
/// Size of the events read at once, bytes.
const BATCH_BYTES: usize = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(10);
/// A refusal that does not depend on time is final after this many tries.
const REFUSALS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Maximum `retry-after` that is honoured.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);
/// Maximum time of delivery after a stop.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// After a stop, delivery ends once no event has come for this time.
const STOP_QUIET: Duration = Duration::from_millis(300);

pub(super) struct Webhook;

impl Kind for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["http", "https"]
    }

    fn own_keys(&self) -> &'static [&'static str] {
        &["secret", "batch"]
    }

    /// A live frame would be out of date by the time a repeated request succeeds.
    fn takes_live(&self) -> bool {
        false
    }

    fn read(&self, section: &mut Section<'_>) -> Arc<dyn Delivery> {
        let secret = section.secret("secret");
        let batch = section.integer("batch", 1..=MAX_BATCH).and_then(|batch| usize::try_from(batch).ok());
        Arc::new(Settings { secret, batch: batch.unwrap_or(1) })
    }
}

/// The settings of one webhook.
struct Settings {
    /// Key of the signature.
    secret: Option<Secret>,
    /// Maximum number of events in one request; 1: the event itself is the body.
    batch: usize,
}

impl Delivery for Settings {
    fn run(self: Arc<Self>, sink: Sink, stop: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move { run(&self, sink, stop).await })
    }
}

async fn run(settings: &Settings, mut sink: Sink, stop: CancellationToken) {
    match Poster::new(&sink.config.url) {
        Ok(poster) => {
            let deadline = async {
                stop.cancelled().await;
                tokio::time::sleep(STOP_GRACE).await;
            };
            tokio::select! {
                () = deliver(settings, &mut sink, &poster, &stop) => {}
                () = deadline => {}
            }
        }
        // Not expected: the configuration has checked the URL.
        Err(error) => {
            tracing::error!(sink = sink.config.name, %error, "the HTTP client of the sink cannot be created; the sink sends nothing")
        }
    }
    sink.position.store().await;
}

/// Delivers until `stop`, and then until nothing is left.
async fn deliver(settings: &Settings, sink: &mut Sink, poster: &Poster, stop: &CancellationToken) {
    let Sink { config, feed, position, metrics, dir } = sink;
    let mut tap = feed.tap(&config.name, position.order(), false, Some(metrics.behind.clone()));
    let mut headers = config.headers.clone();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!("sidetone/", env!("CARGO_PKG_VERSION"))));
    loop {
        let quiet = async {
            stop.cancelled().await;
            tokio::time::sleep(STOP_QUIET).await;
        };
        let store = async {
            match position.due() {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let (pieces, upto) = tokio::select! {
            biased;
            next = tap.next(BATCH_BYTES) => next,
            () = store => {
                position.store().await;
                continue;
            }
            () = quiet => return,
        };
        for request in pieces.chunks(settings.batch) {
            let Some(last) = request.last() else { continue };
            match deliver_one(settings, poster, &mut headers, request, &metrics.retries).await {
                Ok(()) => {
                    metrics.delivered.inc_by(request.len() as u64);
                }
                Err(status) => {
                    metrics.dead_letters.inc_by(request.len() as u64);
                    let count = request.len();
                    tracing::warn!(
                        sink = config.name,
                        status,
                        count,
                        "events were refused permanently and stored as \
                        dead letters"
                    );
                    let frames = request.iter().map(|piece| piece.text.to_string()).collect();
                    dead::keep(dir, &config.name, status, frames).await;
                }
            }
            position.advance(last.order).await;
            metrics.behind.set(feed.behind(position.order()));
        }
        position.advance(upto).await;
        metrics.behind.set(feed.behind(position.order()));
    }
}

/// Posts until the request is accepted, or refused for good: the error is the HTTP status.
async fn deliver_one(
    settings: &Settings,
    poster: &Poster,
    headers: &mut HeaderMap,
    pieces: &[Piece],
    retries: &prometheus_client::metrics::counter::Counter,
) -> Result<(), u16> {
    let body = body(pieces, settings.batch > 1);
    if let Some((call, seq)) = pieces.first().and_then(|piece| piece.event.as_ref())
        && let Ok(id) = HeaderValue::try_from(format!("{call}:{seq}"))
    {
        headers.insert(EVENT_ID, id);
    }
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut refusals = 0;
    loop {
        if let Some(secret) = &settings.secret {
            // Signed again each time: receivers refuse an old time.
            headers.insert(SIGNATURE, signature(&secret.value, unix_ms() / 1000, &body));
        }
        let asked_for = match judge(poster.post(headers, body.clone(), TIMEOUT).await) {
            Verdict::Taken => return Ok(()),
            Verdict::Later(asked_for) => asked_for,
            Verdict::Refused(status) => {
                refusals += 1;
                if refusals >= REFUSALS {
                    return Err(status);
                }
                None
            }
        };
        retries.inc();
        let pause = backoff.pause(rand::random()).max(asked_for.unwrap_or_default().min(LONGEST_RETRY_AFTER));
        tokio::time::sleep_until(Instant::now() + pause).await;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    /// Try again, after the wait that the receiver asked for.
    Later(Option<Duration>),
    Refused(u16),
}

fn judge(answer: Result<Answer, PostError>) -> Verdict {
    match answer {
        Ok(Answer { status: 200..=299, .. }) => Verdict::Taken,
        Ok(Answer { status: 408 | 429 | 500.., retry_after }) => Verdict::Later(retry_after),
        // A redirect too: redirects are not followed.
        Ok(Answer { status, .. }) => Verdict::Refused(status),
        Err(error) => {
            tracing::debug!(%error, "a webhook request failed; retrying");
            Verdict::Later(None)
        }
    }
}

/// The event itself, or `{"events":[…]}`.
fn body(pieces: &[Piece], as_list: bool) -> Bytes {
    match pieces {
        [piece] if !as_list => Bytes::from(piece.text.clone()),
        _ => {
            let texts: Vec<&str> = pieces.iter().map(|piece| piece.text.as_str()).collect();
            Bytes::from(format!(r#"{{"events":[{}]}}"#, texts.join(",")))
        }
    }
}

/// The signature `t=TIME,v1=HEX`: HMAC-SHA256 with the secret over `TIME.BODY`, with the time in seconds since 1970.
pub(super) fn signature(secret: &SecretString, unix_s: i64, body: &[u8]) -> HeaderValue {
    let time = unix_s.to_string();
    let code = mac::code(secret.expose_secret().as_bytes(), &[time.as_bytes(), b".", body]);
    let text = format!("t={time},v1={}", hex::encode(code));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_reproducible() {
        // echo -n '1.{"a":1}' | openssl dgst -sha256 -hmac whsec
        let value = signature(&SecretString::from("whsec"), 1, br#"{"a":1}"#);
        assert_eq!(
            value.to_str().expect("text"),
            "t=1,v1=cb62c9bd121311db4a1653a3a18764331d231d5714181d7a65d4606804c0109a"
        );
    }

    #[test]
    fn answers_are_judged_by_class() {
        let answer = |status| Ok(Answer { status, retry_after: Some(Duration::from_secs(9)) });
        assert_eq!(judge(answer(204)), Verdict::Taken);
        for status in [408, 429, 500, 503, 599] {
            assert_eq!(judge(answer(status)), Verdict::Later(Some(Duration::from_secs(9))), "{status}");
        }
        for status in [301, 400, 401, 404, 410, 422] {
            assert_eq!(judge(answer(status)), Verdict::Refused(status), "{status}");
        }
        let lost = PostError::Timeout { host: "h".into(), timeout: TIMEOUT };
        assert_eq!(judge(Err(lost)), Verdict::Later(None));
    }
}
