//! The clients' HTTP: one `GET` or `POST`, one JSON answer. Knows no path of the daemon.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::reconnect::{RECONNECTS, pause};
use super::target::{Target, next_step};
use crate::base::http::{Kind, Pool, uri};
use crate::protocol::ReconnectWhen;

/// Timeout of one request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Refusals that may pass by themselves.
const PASSING: [StatusCode; 2] = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
/// Maximum size of an answer, bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// `GET path`: returns the JSON of a 200, or `None` for a 404.
///
/// # Errors
/// No connection, another status (with the daemon's message), or an answer that is not JSON.
///
/// # Cancel safety
/// Dropping the future drops the connection.
pub(crate) async fn get(target: &Target, path: &str) -> Result<Option<Value>> {
    let (status, body) = ask_for(target, path).await?;
    read(target, path, status, &body)
}

/// `GET path`: succeeds if the answer is 200, with any body.
///
/// # Errors
/// No connection, or another status (with the daemon's message).
///
/// # Cancel safety
/// As [`get`].
pub(crate) async fn status(target: &Target, path: &str) -> Result<()> {
    let (status, body) = ask_for(target, path).await?;
    if status == StatusCode::OK {
        return Ok(());
    }
    bail!("{} answered {status}: {}", target.http(path), reason(&body))
}

async fn ask_for(target: &Target, path: &str) -> Result<(StatusCode, Bytes)> {
    tokio::time::timeout(TIMEOUT, exchange(target, Method::GET, path, Bytes::new()))
        .await
        .map_err(|_| anyhow!("no answer from {} within {} s", target.http(path), TIMEOUT.as_secs()))?
        .with_context(|| format!("cannot get {}", target.http(path)))
}

fn read(target: &Target, path: &str, status: StatusCode, body: &[u8]) -> Result<Option<Value>> {
    if status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    if status != StatusCode::OK {
        bail!("{} answered {status}: {}", target.http(path), reason(body));
    }
    let value =
        serde_json::from_slice(body).with_context(|| format!("the response of {} is not JSON", target.http(path)))?;
    Ok(Some(value))
}

/// `POST path` with a JSON body: returns the JSON of a 200.
///
/// # Errors
/// No connection, another status (with the daemon's message), or an answer that is not JSON.
///
/// # Cancel safety
/// Dropping the future drops the connection.
pub(crate) async fn post(target: &Target, path: &str, body: &Value) -> Result<Value> {
    post_within(target, path, body.to_string(), TIMEOUT).await
}

/// [`post`] of a text that is JSON, whose answer may take up to `timeout`.
///
/// # Errors
/// As [`post`].
///
/// # Cancel safety
/// As [`post`].
pub(crate) async fn post_within(target: &Target, path: &str, body: String, timeout: Duration) -> Result<Value> {
    let (status, body) = tokio::time::timeout(timeout, exchange(target, Method::POST, path, body.into()))
        .await
        .map_err(|_| anyhow!("no answer from {} within {} s", target.http(path), timeout.as_secs()))?
        .with_context(|| format!("cannot post to {}", target.http(path)))?;
    if status != StatusCode::OK {
        bail!("{} answered {status}: {}", target.http(path), reason(&body));
    }
    serde_json::from_slice(&body).with_context(|| format!("the response of {} is not JSON", target.http(path)))
}

/// Repeats [`get`] until it works or `patience` is over, and so survives a restart of the daemon. A refusal (such as of
/// the key) is not repeated, because the daemon would refuse again.
///
/// # Errors
/// The refusal, or the last failure.
///
/// # Cancel safety
/// As [`get`].
pub(crate) async fn get_patiently(target: &Target, path: &str, patience: Duration) -> Result<Option<Value>> {
    let deadline = Instant::now() + patience;
    let mut backoff = RECONNECTS;
    loop {
        let answer = ask_for(target, path).await;
        let passes = |status: StatusCode| !status.is_client_error() || PASSING.contains(&status);
        let again = answer.as_ref().map_or(true, |(status, _)| passes(*status)) && Instant::now() < deadline;
        match answer.and_then(|(status, body)| read(target, path, status, &body)) {
            Err(_) if again => tokio::time::sleep(pause(&mut backoff, ReconnectWhen::Now)).await,
            answer => return answer,
        }
    }
}

async fn exchange(target: &Target, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
    let url: Url = target.http(path).parse()?;
    let mut request = Request::builder()
        .method(method)
        .uri(uri(&url)?)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)?;
    request.headers_mut().extend(target.headers());
    let mut response = Pool::new(&url, TIMEOUT)?.send(request).await.map_err(|error| match error.kind() {
        Kind::Refused | Kind::ConnectTimeout => anyhow!(error).context(format!(
            "no daemon at {target}; start one with `sidetone serve`, or name another \
                with --to"
        )),
        _ => anyhow!(error),
    })?;
    let status = StatusCode::from_u16(response.status)?;
    Ok((status, response.read(MAX_ANSWER_BYTES).await?.into()))
}

/// The message of a problem document with the next step, or the start of any other body.
fn reason(body: &[u8]) -> String {
    let document: Option<Value> = serde_json::from_slice(body).ok();
    let code =
        |value: &Value| ["/code", "/error/code"].iter().find_map(|key| Some(next_step(value.pointer(key)?.as_str()?)));
    let next = document.as_ref().and_then(code).unwrap_or_default();
    let said = document.as_ref().and_then(|value| {
        let said = ["/detail", "/title", "/error/message"].iter().find_map(|key| value.pointer(key)?.as_str());
        said.map(|said| format!("{said}{next}"))
    });
    said.unwrap_or_else(|| String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned())
}
