//! A vendor with another authentication and framing needs only an implementation of `Provider`; the transport does the
//! rest.

use serde_json::{Value, json};

use super::fake::{Fake, Step, reply};
use super::*;
use crate::gateway::transport::auth::{Auth, Credentials, ServiceAccount, SigV4};
use crate::llm::sse::Event;
use crate::llm::{
    AuthScheme, Call, ChatResponse, Class, Finish, Framing, Piece, Provider, SchemaMode, StreamDecoder, StreamError,
    Unsupported, VendorError, Wire,
};

/// A vendor that sends `{"text":…}` and `{"stop":true}` in some framing.
struct Vendor {
    auth: AuthScheme,
    framing: Framing,
}

static SIGNED: Vendor = Vendor { auth: AuthScheme::SigV4 { service: "bedrock" }, framing: Framing::AwsEventStream };
static WITH_TOKEN: Vendor = Vendor { auth: AuthScheme::ServiceAccount { scope: "s" }, framing: Framing::JsonLines };

impl Provider for Vendor {
    fn name(&self) -> &'static str {
        "vendor"
    }

    fn base_url(&self) -> Option<&'static str> {
        None
    }

    fn auth(&self) -> AuthScheme {
        self.auth
    }

    fn framing(&self) -> Framing {
        self.framing
    }

    fn schema_modes(&self) -> &'static [SchemaMode] {
        &[SchemaMode::Prompt]
    }

    fn encode(&self, request: &ChatRequest, _call: &Call<'_>) -> Result<Wire, Unsupported> {
        let body = json!({"text": request.messages[0].content.plain()}).to_string();
        Ok(Wire { path: "/model/a%3A0/converse-stream".to_owned(), headers: Vec::new(), body: body.into_bytes() })
    }

    fn answer(&self, _body: &[u8]) -> Result<ChatResponse, StreamError> {
        Err(StreamError::Malformed("no stream".to_owned()))
    }

    fn stream(&self) -> Box<dyn StreamDecoder> {
        Box::new(Decoder)
    }
}

struct Decoder;

impl StreamDecoder for Decoder {
    fn decode(&mut self, event: Event<'_>, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        if event.name == "throttlingException" {
            return Err(StreamError::Vendor(VendorError {
                class: Class::RateLimited,
                status: 429,
                code: None,
                message: "too many".to_owned(),
                retry_after: None,
                retry: true,
            }));
        }
        let data: Value =
            serde_json::from_slice(event.data).map_err(|error| StreamError::Malformed(error.to_string()))?;
        if let Some(text) = data["text"].as_str() {
            out.push(Piece::Text { choice: 0, text: text.to_owned() });
        }
        if data["stop"] == true {
            out.extend([Piece::Finish { choice: 0, reason: Finish::Stop }, Piece::Done]);
        }
        Ok(())
    }
}

/// A message of an AWS event stream.
fn message(kind: &str, type_header: &str, name: &str, payload: &str) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [(":message-type", kind), (type_header, name)] {
        headers.push(u8::try_from(name.len()).expect("short"));
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&u16::try_from(value.len()).expect("short").to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let total = u32::try_from(16 + headers.len() + payload.len()).expect("short");
    let mut whole = total.to_be_bytes().to_vec();
    whole.extend_from_slice(&u32::try_from(headers.len()).expect("short").to_be_bytes());
    whole.extend_from_slice(&crc32fast::hash(&whole).to_be_bytes());
    whole.extend_from_slice(&headers);
    whole.extend_from_slice(payload.as_bytes());
    whole.extend_from_slice(&crc32fast::hash(&whole).to_be_bytes());
    whole
}

fn event(payload: &str) -> Vec<u8> {
    message("event", ":event-type", "contentBlockDelta", payload)
}

/// A reply of this media type with these parts, each written alone.
fn streamed(media_type: &str, parts: &[Vec<u8>]) -> fake::Reply {
    let length: usize = parts.iter().map(Vec::len).sum();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n");
    let mut steps = vec![Step::Write(head.into_bytes())];
    steps.extend(parts.iter().cloned().map(Step::Write));
    steps
}

/// A gateway over the fakes, of which the first is asked by `vendor`'s rules.
fn with_vendor(fakes: &[&Fake], vendor: &'static Vendor, auth: Arc<dyn Auth>) -> (Gateway, Arc<Tape>) {
    let mut text = String::new();
    for (index, fake) in fakes.iter().enumerate() {
        let url = &fake.url;
        text.push_str(&format!("[endpoints.e{index}]\nprovider = \"openai_compatible\"\nbase_url = \"{url}\"\n"));
    }
    let candidates: Vec<String> = (0..fakes.len()).map(|index| format!("\"e{index}/v\"")).collect();
    text.push_str(&format!("[models.m]\ncandidates = [{}]\nretries = 0\n", candidates.join(", ")));
    let mut config = config(&text);
    config.endpoints[0].provider = vendor;
    config.endpoints[0].auth = Some(auth);
    let tape = Arc::new(Tape::default());
    let recorder: Arc<dyn Recorder> = Arc::clone(&tape) as _;
    (Gateway::recorded(config, Metrics::default(), recorder, None).expect("gateway"), tape)
}

fn signed() -> Arc<dyn Auth> {
    let credentials = Credentials::parse(&"AKIDEXAMPLE:wJalrXUtnFEMI/K7MDENG".to_owned().into()).expect("credentials");
    Arc::new(SigV4::new(credentials, "eu-west-1", "bedrock"))
}

const AWS: &str = "application/vnd.amazon.eventstream";

#[tokio::test]
async fn signed_request_and_binary_stream_give_an_answer() {
    let whole = [event(r#"{"text":"Hel"}"#), event(r#"{"text":"lo"}"#), event(r#"{"stop":true}"#)].concat();
    // Cut within a message.
    let parts = [whole[..40].to_vec(), whole[40..].to_vec()];
    let fake = Fake::start(vec![streamed(AWS, &parts)]).await;
    let (gateway, tape) = with_vendor(&[&fake], &SIGNED, signed());
    let answer = gateway.complete(upstream_streamed(&gateway)).await.expect("answer");
    assert_eq!((answer.text.as_str(), tape.outcomes()), ("Hello", vec![("ok", None)]));
    let head = fake.seen.lock().expect("seen").heads[0].to_lowercase();
    assert!(head.starts_with("post /v1/model/a%3a0/converse-stream "), "{head}");
    let authorization = head.lines().find(|line| line.starts_with("authorization:")).expect("signed");
    assert!(authorization.contains("/eu-west-1/bedrock/aws4_request, signedheaders=content-type;host;x-amz-date,"));
    assert!(head.contains("x-amz-date: "), "{head}");
}

#[tokio::test]
async fn exception_and_broken_checksum_move_on_to_the_next_candidate() {
    let exception = message("exception", ":exception-type", "throttlingException", "{}");
    let mut broken = event(r#"{"text":"x"}"#);
    broken[50] ^= 1;
    for (first, code) in [(exception, "rate_limited"), (broken, "malformed")] {
        let (bad, good) =
            (Fake::start(vec![streamed(AWS, &[first])]).await, Fake::start(vec![fake::stream(&["well"])]).await);
        let (gateway, tape) = with_vendor(&[&bad, &good], &SIGNED, signed());
        let answer = gateway.complete(upstream_streamed(&gateway)).await.expect("answer");
        assert_eq!((answer.text.as_str(), tape.outcomes()), ("well", vec![("failed", Some(code)), ("ok", None)]));
    }
}

#[tokio::test]
async fn token_is_fetched_and_json_lines_give_an_answer() {
    let token = reply(200, "", r#"{"access_token":"t-1","expires_in":3600}"#);
    let tokens = Fake::start(vec![token]).await;
    let lines = b"{\"text\":\"Hel\"}\n{\"text\":\"lo\"}\n{\"stop\":true}\n".to_vec();
    let fake = Fake::start(vec![streamed("application/x-ndjson", &[lines])]).await;
    let file = json!({
        "client_email": "bot@project.iam.example", "private_key": include_str!("../transport/auth/test_key.pem"),
        "token_uri": tokens.url,
    });
    let account = Arc::new(ServiceAccount::read(&file.to_string(), "s").expect("a key file"));
    let (gateway, _) = with_vendor(&[&fake], &WITH_TOKEN, account);
    for _ in 0..2 {
        assert_eq!(gateway.complete(upstream_streamed(&gateway)).await.expect("answer").text, "Hello");
    }
    assert_eq!(tokens.requests(), 1, "the token is kept");
    let head = fake.seen.lock().expect("seen").heads[1].to_lowercase();
    assert!(head.contains("authorization: bearer t-1"), "{head}");
}

#[tokio::test]
async fn without_a_token_nothing_is_sent_to_the_vendor() {
    let tokens = Fake::start(vec![reply(400, "", r#"{"error":"invalid_grant"}"#)]).await;
    let fake = Fake::start(vec![fake::stream(&["never"])]).await;
    let file = json!({
        "client_email": "bot@project.iam.example", "private_key": include_str!("../transport/auth/test_key.pem"),
        "token_uri": tokens.url,
    });
    let account = Arc::new(ServiceAccount::read(&file.to_string(), "s").expect("a key file"));
    let (gateway, tape) = with_vendor(&[&fake], &WITH_TOKEN, account);
    let error = gateway.complete(upstream_streamed(&gateway)).await.expect_err("no token");
    assert_eq!((error.code(), error.temporary(), fake.requests()), (Code::UpstreamAuth, false, 0));
    assert_eq!(tape.outcomes(), [("failed", Some("upstream_auth"))]);
}
