//! OpenTelemetry, at the socket: the exported data is OTLP, and describes requests without any text of a call. Without
//! the feature, its configuration is a start-up error.

use crate::support::shared;

#[cfg(not(feature = "otel"))]
#[tokio::test]
async fn a_build_without_it_says_so() {
    let _machine = shared().await;
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("sidetone.toml");
    std::fs::write(&path, "[telemetry]\notlp_endpoint = \"http://127.0.0.1:4318\"\n").expect("write");
    let path = path.display().to_string();
    for command in ["check", "serve"] {
        let output = crate::support::daemon::run(&[command, "--config", &path]).await;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("telemetry.otlp_endpoint") && said.contains("--features otel"), "{said}");
    }
}

#[cfg(feature = "otel")]
mod built {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};
    use hyper::body::Incoming;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;
    use crate::support::daemon::Daemon;
    use crate::support::llm::{MockLlm, Step};
    use crate::support::{PATIENCE, json};

    /// A field of a protobuf message.
    enum Field<'a> {
        Number(u64),
        Bytes(&'a [u8]),
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first().expect("a varint");
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }

    fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let length = match key & 7 {
                0 => {
                    fields.push((key >> 3, Field::Number(varint(&mut bytes))));
                    continue;
                }
                1 => 8,
                2 => usize::try_from(varint(&mut bytes)).expect("a length"),
                5 => 4,
                wire => panic!("wire type {wire}"),
            };
            let (value, rest) = bytes.split_at(length);
            bytes = rest;
            fields.push((key >> 3, Field::Bytes(value)));
        }
        fields
    }

    fn inner(bytes: &[u8], number: u64) -> Vec<&[u8]> {
        let found = fields(bytes).into_iter().filter(|(known, _)| *known == number);
        found.filter_map(|(_, field)| if let Field::Bytes(bytes) = field { Some(bytes) } else { None }).collect()
    }

    #[derive(Debug, Clone, Default)]
    struct Span {
        trace: Vec<u8>,
        id: Vec<u8>,
        parent: Vec<u8>,
        name: String,
        attributes: BTreeMap<String, String>,
        failed: bool,
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    }

    fn span(bytes: &[u8]) -> Span {
        let one = |number| inner(bytes, number).first().copied().unwrap_or_default().to_vec();
        let attributes = inner(bytes, 9).into_iter().map(|attribute| {
            let value = inner(attribute, 2)[0];
            let shown = match fields(value).first() {
                Some((1, Field::Bytes(value))) => text(value),
                Some((3, Field::Number(value))) => value.to_string(),
                Some((4, Field::Bytes(value))) => f64::from_le_bytes((*value).try_into().expect("8 bytes")).to_string(),
                _ => panic!("an attribute's value"),
            };
            (text(inner(attribute, 1)[0]), shown)
        });
        let status = inner(bytes, 15);
        let failed = status.first().is_some_and(|status| {
            fields(status).iter().any(|(number, field)| *number == 3 && matches!(field, Field::Number(2)))
        });
        Span {
            trace: one(1),
            id: one(2),
            parent: one(4),
            name: text(&one(5)),
            attributes: attributes.collect(),
            failed,
        }
    }

    type Bodies = Arc<Mutex<Vec<Bytes>>>;

    /// Receives OTLP over HTTP.
    async fn collector() -> (String, Bodies) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let bodies: Bodies = Arc::default();
        let kept = Arc::clone(&bodies);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                let take = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let kept = Arc::clone(&kept);
                    async move {
                        assert_eq!(request.uri().path(), "/v1/traces");
                        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                        let body = request.into_body().collect().await.expect("body").to_bytes();
                        kept.lock().expect("lock").push(body);
                        Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::new())))
                    }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), take));
            }
        });
        (url, bodies)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_and_attempts_are_spans_without_text() {
        let _machine = shared().await;
        let (url, bodies) = collector().await;
        let mock = MockLlm::start().await;
        let config = format!(
            "[telemetry]\notlp_endpoint = \"{url}\"\n\
             [endpoints.mock]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\n\
             [models.m]\ncandidates = [\"mock/bad\", \"mock/good\"]\nretries = 0\n\
             [routes.r]\nvariants = [{{ name = \"x\", model = \"m\" }}]\n",
            mock.base_url()
        );
        let mut daemon = Daemon::start(&config).await;
        mock.script(
            |asked| if asked.body["model"] == "bad" { Step::Status(503) } else { Step::Answer(Duration::ZERO) },
        );
        for stream in [false, true] {
            let body = json!({"model":"r","stream":stream,"messages":[{"role":"user","content":"A secret sentence."}]});
            assert_eq!(daemon.post("/v1/chat/completions", &body).await.status, 200);
        }
        let body = json!({"model":"mock/bad","messages":[{"role":"user","content":"A secret sentence."}]});
        assert_ne!(daemon.post("/v1/chat/completions", &body).await.status, 200);
        daemon.sigterm();
        daemon.ended(PATIENCE).await;
        let bodies = bodies.lock().expect("lock").clone();
        let spans: Vec<Span> = bodies
            .iter()
            .flat_map(|body| inner(body, 1))
            .flat_map(|resource| inner(resource, 2))
            .flat_map(|scope| inner(scope, 2))
            .map(span)
            .collect();
        let all = bodies.iter().any(|body| {
            body.windows(6).any(|window| window == b"secret") || body.windows(8).any(|window| window == b"scripted")
        });
        assert!(!all, "no text is in it");
        let roots: Vec<&Span> = spans.iter().filter(|span| span.parent.is_empty()).collect();
        assert_eq!(roots.len(), 3, "{spans:#?}");
        let of = |root: &Span| -> Vec<&Span> {
            spans.iter().filter(|span| span.parent == root.id && span.trace == root.trace).collect()
        };
        for root in roots.iter().filter(|root| root.name == "chat m") {
            let attribute = |name: &str| root.attributes.get(name).map_or("", String::as_str);
            assert!(!root.failed, "{root:?}");
            assert_eq!(attribute("gen_ai.operation.name"), "chat");
            assert_eq!((attribute("sidetone.route"), attribute("sidetone.variant")), ("r", "x"));
            assert_eq!((attribute("gen_ai.response.model"), attribute("sidetone.attempts")), ("good", "2"));
            assert_ne!(attribute("gen_ai.usage.input_tokens"), "");
            let attempts = of(root);
            let names: Vec<&str> = attempts.iter().map(|span| span.name.as_str()).collect();
            assert_eq!(names, ["chat bad", "chat good"], "{attempts:#?}");
            assert_eq!(attempts[0].attributes["http.response.status_code"], "503");
            assert!(attempts[0].failed && attempts[0].attributes["error.type"] == "upstream_error");
            assert!(!attempts[1].failed && attempts[1].attributes["sidetone.why"] == "failover");
            assert_eq!(attempts[1].attributes["gen_ai.provider.name"], "openai_compatible");
        }
        let failed: Vec<&&Span> = roots.iter().filter(|root| root.failed).collect();
        assert_eq!((failed.len(), failed[0].name.as_str()), (1, "chat mock/bad"));
        assert_eq!(failed[0].attributes["error.type"], "upstream_error");
    }
}
