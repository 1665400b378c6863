//! The rows of the matrix.

use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;

use super::answers;
use super::fault::{Fault, both, elsewhere, fails, limited, status};
use crate::support::vendor::{Dialect, Step, reply, typed};

/// Endpoints of faults that the scripted vendor cannot produce, as a configuration.
pub(super) async fn endpoints(dialect: Dialect) -> String {
    if dialect != Dialect::OpenAi {
        return String::new();
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("bind").local_addr().expect("address");
    // Answers everything with bytes that are not TLS.
    let noise = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let tls = noise.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = noise.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, b"220 mail.example.com ready\r\n").await;
            let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
        }
    });
    let untrusted = self_signed().await;
    let endpoint = |name: &str, url: String| {
        format!("[endpoints.{name}]\nprovider = \"openai_compatible\"\nbase_url = \"{url}\"\n")
    };
    endpoint("closed", format!("http://{closed}/v1"))
        + &endpoint("tls", format!("https://{tls}/v1"))
        + &endpoint("untrusted", format!("https://{untrusted}/v1"))
}

/// A TLS server whose certificate no authority has signed.
async fn self_signed() -> std::net::SocketAddr {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("certificate");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let _ = acceptor.accept(socket).await;
            });
        }
    });
    address
}

pub(super) fn all(dialect: Dialect) -> Vec<Fault> {
    let mut rows = answers::streams(dialect);
    rows.extend(answers::bodies(dialect));
    match dialect {
        Dialect::OpenAi => {
            rows.extend(refusals());
            rows.extend(connections());
        }
        Dialect::Anthropic => rows.extend(answers::anthropics()),
        Dialect::Google => rows.extend(answers::googles()),
    }
    rows
}

fn connections() -> Vec<Fault> {
    vec![
        elsewhere("refused", "closed", || fails(502, "refused", 2)),
        elsewhere("tls-none", "tls", || fails(502, "upstream_error", 1)),
        elsewhere("tls-untrusted", "untrusted", || fails(502, "upstream_error", 1)),
        both("reset-unanswered", || fails(502, "upstream_error", 2), |_, _| vec![Step::Reset]),
        both("closed-unanswered", || fails(502, "upstream_error", 2), |_, _| vec![Step::Close]),
        both("silent", || fails(504, "timeout", 1), |_, _| vec![Step::Hang]),
        both(
            "half-a-head",
            || fails(504, "timeout", 1),
            |_, _| vec![Step::Write(b"HTTP/1.1 200 OK\r\ncontent-ty".to_vec()), Step::Hang],
        ),
        both(
            "dripping-head",
            || fails(504, "timeout", 1),
            |_, _| {
                vec![
                    Step::Write(b"HTTP/1.1 200 OK\r\n".to_vec()),
                    Step::Forever(b"x-drip: 1\r\n".to_vec(), Duration::from_millis(100)),
                ]
            },
        ),
        both(
            "no-http",
            || fails(502, "upstream_error", 2),
            |_, _| vec![Step::Write(b"+OK this is no web server\r\n".to_vec()), Step::Close],
        ),
        both(
            "redirect",
            || fails(502, "upstream_error", 2),
            |_, _| reply(307, "location: http://127.0.0.1:9/\r\n", ""),
        ),
    ]
}

fn refusals() -> Vec<Fault> {
    let quota = |name, kind: &'static str| {
        both(
            name,
            || fails(429, "quota_exhausted", 1),
            move |dialect, _| reply(429, "", &dialect.error(429, kind, "no")),
        )
    };
    vec![
        status(400, "400", "invalid_request", 400, 1),
        status(401, "401", "upstream_auth", 502, 1),
        status(403, "403", "upstream_auth", 502, 1),
        status(404, "404", "model_not_found", 404, 1),
        status(408, "408", "upstream_error", 408, 2),
        status(413, "413", "invalid_request", 413, 1),
        status(422, "422", "invalid_request", 422, 1),
        status(500, "500", "upstream_error", 500, 2),
        status(502, "502", "upstream_error", 502, 2),
        status(503, "503", "upstream_error", 503, 2),
        status(529, "529", "upstream_error", 529, 2),
        both(
            "400-key",
            || fails(502, "upstream_auth", 1),
            |dialect, _| reply(400, "", &dialect.error(400, "invalid_api_key", "no")),
        ),
        both(
            "500-final",
            || fails(500, "upstream_error", 1),
            |dialect, _| reply(500, "x-should-retry: false\r\n", &dialect.error(500, "server_error", "no")),
        ),
        both(
            "500-page",
            || fails(500, "upstream_error", 2),
            |_, _| typed(500, "text/html", "", "<html><h1>Bad gateway</h1></html>"),
        ),
        both(
            "401-cut",
            || fails(502, "upstream_auth", 1),
            |_, _| {
                let head =
                    "HTTP/1.1 401 X\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{\"error\":{\"mess";
                vec![Step::Write(head.as_bytes().to_vec()), Step::Close]
            },
        ),
        both(
            "400-stalled",
            || fails(400, "invalid_request", 1),
            |_, _| {
                let head =
                    "HTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{\"error\":{\"mess";
                vec![Step::Write(head.as_bytes().to_vec()), Step::Hang]
            },
        ),
        quota("429-quota", "insufficient_quota"),
        quota("429-spend", "project_spend_limit_exceeded"),
        limited("429-seconds", 2, 1..=1, || "retry-after: 1\r\n".to_owned()),
        limited("429-fraction", 2, 1..=1, || "retry-after: 0.3\r\n".to_owned()),
        limited("429-ms", 2, 1..=1, || "retry-after-ms: 250\r\n".to_owned()),
        limited("429-date", 2, 1..=2, || {
            let at = SystemTime::now() + Duration::from_secs(2);
            format!("retry-after: {}\r\n", httpdate::fmt_http_date(at))
        }),
        // No client waits for an hour.
        limited("429-hour", 1, 3590..=3600, || "retry-after: 3600\r\n".to_owned()),
        limited("429-next-year", 1, 3000..=4000, || {
            let at = SystemTime::now() + Duration::from_secs(3600);
            format!("retry-after: {}\r\n", httpdate::fmt_http_date(at))
        }),
        both(
            "429-bare",
            || fails(429, "rate_limited", 2),
            |dialect, _| reply(429, "", &dialect.error(429, "rate_limit_exceeded", "slow down")),
        ),
        both(
            "429-final",
            || fails(429, "rate_limited", 1),
            |dialect, _| {
                reply(429, "x-should-retry: false\r\n", &dialect.error(429, "rate_limit_exceeded", "slow down"))
            },
        ),
        both("429-page", || fails(429, "rate_limited", 2), |_, _| typed(429, "text/html", "", "<html>busy</html>")),
    ]
}
