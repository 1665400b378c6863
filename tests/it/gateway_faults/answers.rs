//! Rows of answers: streams and whole bodies that are cut, wrong or not what they say.

use std::time::Duration;

use super::fault::{Expect, Fault, Make, both, fails, limited, plain, status, stream};
use crate::support::json;
use crate::support::vendor::{Asked, Dialect, Step, Tokens, chunk, data, end, reply, typed};

/// The status that an overload inside a 200 is mapped to.
fn overloaded(dialect: Dialect) -> u16 {
    if dialect == Dialect::Anthropic { 529 } else { 503 }
}

pub(super) fn streams(dialect: Dialect) -> Vec<Fault> {
    let broken = |code| Expect::Broken { code };
    let text = |dialect: Dialect, text: &str, tokens| chunk(dialect.text(text, tokens));
    let rest = |dialect: Dialect, tokens| chunk(dialect.finish(tokens).concat());
    let mut rows = vec![
        stream("stall-before-token", fails(504, "timeout", 1), |_, _| vec![Step::Hang]),
        stream("comments-before-token", fails(504, "timeout", 1), |_, _| {
            vec![Step::Forever(b"4\r\n: x\n\r\n".to_vec(), Duration::from_millis(100))]
        }),
        stream("stall-after-token", broken("timeout"), move |d, t| vec![text(d, "so", t), Step::Hang]),
        stream("comments-after-token", broken("timeout"), move |d, t| {
            vec![text(d, "so", t), Step::Forever(b"4\r\n: x\n\r\n".to_vec(), Duration::from_millis(100))]
        }),
        stream("error-after-preamble", fails(overloaded(dialect), "upstream_error", 2), |d, _| {
            vec![chunk(d.error_event()), end()]
        }),
        stream("error-after-token", broken("upstream_error"), move |d, t| {
            vec![text(d, "so", t), chunk(d.error_event()), end()]
        }),
        stream("fin-before-token", fails(502, "interrupted", 2), |_, _| vec![Step::Close]),
        stream("fin-after-token", broken("interrupted"), move |d, t| vec![text(d, "so", t), Step::Close]),
        stream("rst-before-token", fails(502, "interrupted", 2), |_, _| {
            vec![Step::Wait(Duration::from_millis(50)), Step::Reset]
        }),
        stream("rst-after-token", broken("interrupted"), move |d, t| {
            // A reset discards bytes that were not read yet: wait until the token was read.
            vec![text(d, "so", t), Step::Wait(Duration::from_millis(300)), Step::Reset]
        }),
        stream("end-before-finish", broken("interrupted"), move |d, t| vec![text(d, "so", t), end()]),
        stream("malformed-line", Expect::Answer("so it is".to_owned()), move |d, t| {
            vec![text(d, "so ", t), chunk("data: {\"choices\": [nonsense\n\n"), text(d, "it is", t), rest(d, t), end()]
        }),
        stream("nothing-but-nonsense", fails(502, "malformed", 2), |_, _| {
            vec![chunk("data: {nonsense\n\n"), chunk("data: more of it\n\n"), end()]
        }),
        stream("split-utf8", Expect::Answer("Grüße, 世界 🎧".to_owned()), move |d, t| {
            let all = d.text("Grüße, 世界 🎧", t);
            let mut steps: Vec<Step> = all.as_bytes().chunks(1).map(chunk).collect();
            steps.extend([rest(d, t), end()]);
            steps
        }),
        stream("long-line", Expect::Answer("long ".repeat(200_000)), move |d, t| {
            vec![text(d, &"long ".repeat(200_000), t), rest(d, t), end()]
        }),
        stream("huge-line", fails(502, "malformed", 2), move |d, t| {
            vec![text(d, &"huge ".repeat(1_200_000), t), rest(d, t), end()]
        }),
        stream("slow-drip", Expect::Answer("drip".to_owned()), move |d, t| {
            let mut steps = vec![text(d, "dr", t)];
            let tail = d.text("ip", t) + &d.finish(t).concat();
            for part in tail.as_bytes().chunks(tail.len().div_ceil(20)) {
                steps.extend([Step::Wait(Duration::from_millis(30)), chunk(part)]);
            }
            steps.push(end());
            steps
        }),
        stream("endless", broken("timeout"), move |d, t| {
            let event = d.text("on and on ", t);
            vec![Step::Forever(format!("{:x}\r\n{event}\r\n", event.len()).into_bytes(), Duration::from_millis(40))]
        }),
        stream("no-end-of-body", Expect::Answer("so".to_owned()), move |d, t| {
            vec![text(d, "so", t), rest(d, t), Step::Hang]
        }),
    ];
    if dialect == Dialect::OpenAi {
        rows.push(stream("double-done", Expect::Answer("so".to_owned()), move |d, t| {
            vec![text(d, "so", t), rest(d, t), chunk("data: [DONE]\n\n"), end()]
        }));
        rows.push(stream("no-done", Expect::Answer("so".to_owned()), move |d, t| {
            let finish = d.finish(t);
            vec![text(d, "so", t), chunk(finish[..2].concat()), end()]
        }));
    }
    rows
}

pub(super) fn bodies(dialect: Dialect) -> Vec<Fault> {
    let cut = |ending: Step| {
        move |dialect: Dialect, asked: &Asked| {
            let body = dialect.whole("so it is", Tokens::of(asked));
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
            let start = head + &body[..body.len() / 2];
            vec![Step::Write(start.into_bytes()), Step::Wait(Duration::from_millis(100)), ending.clone()]
        }
    };
    let mut rows = vec![
        both(
            "html",
            || fails(502, "malformed", 2),
            |_, _| typed(200, "text/html", "", "<!DOCTYPE html><html><body>Log in</body></html>"),
        ),
        both("html-as-json", || fails(502, "malformed", 2), |_, _| reply(200, "", "<html>Log in</html>")),
        both("empty", || fails(502, "malformed", 2), |_, _| reply(200, "", "")),
        both(
            "truncated-json",
            || fails(502, "malformed", 2),
            |dialect, asked| {
                let body = dialect.whole("so it is", Tokens::of(asked));
                reply(200, "", &body[..body.len() / 2])
            },
        ),
        Fault {
            name: "error-in-200",
            endpoint: "bad",
            streamed: fails(overloaded(dialect), "upstream_error", 2),
            plain: fails(overloaded(dialect), "upstream_error", 2),
            make: Box::new(|dialect, _| match dialect {
                Dialect::OpenAi => reply(200, "", &json!({"error":{"message":"no","code":503}}).to_string()),
                Dialect::Anthropic => reply(200, "", &dialect.error(529, "overloaded_error", "no")),
                Dialect::Google => reply(200, "", &dialect.error(503, "UNAVAILABLE", "no")),
            }),
        },
        plain("fin-in-body", fails(502, "interrupted", 2), cut(Step::Close)),
        plain("rst-in-body", fails(502, "interrupted", 2), cut(Step::Reset)),
        plain("stall-in-body", fails(504, "timeout", 1), cut(Step::Hang)),
        mislabelled("stream-as-page", "text/html; charset=utf-8"),
        mislabelled("stream-as-json", "application/json"),
        plain("wrong-content-type", Expect::Answer("so it is".to_owned()), |dialect, asked| {
            typed(200, "text/plain", "", &dialect.whole("so it is", Tokens::of(asked)))
        }),
        plain("drip-body", Expect::Answer("so it is".to_owned()), |dialect, asked| {
            let body = dialect.whole("so it is", Tokens::of(asked));
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
            let mut steps = vec![Step::Write(head.into_bytes())];
            for part in body.as_bytes().chunks(body.len().div_ceil(12)) {
                steps.extend([Step::Wait(Duration::from_millis(25)), Step::Write(part.to_vec())]);
            }
            steps
        }),
        plain("endless-body", fails(502, "malformed", 2), |_, _| {
            let spaces = " ".repeat(1 << 20);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
            let piece = format!("{:x}\r\n{spaces}\r\n", spaces.len());
            vec![Step::Write(head.as_bytes().to_vec()), Step::Forever(piece.into_bytes(), Duration::ZERO)]
        }),
        // It answers a request for a stream at once as a whole, and a request for an answer with a stream.
        Fault {
            name: "other-form",
            endpoint: "bad",
            streamed: Expect::Answer("so it is".to_owned()),
            plain: Expect::Answer("so it is".to_owned()),
            make: Box::new(|dialect, asked| {
                let tokens = Tokens::of(asked);
                if asked.stream {
                    reply(200, "", &dialect.whole("so it is", tokens))
                } else {
                    dialect.streamed(&["so it ", "is"], tokens)
                }
            }),
        },
    ];
    if dialect == Dialect::OpenAi {
        rows.push(plain("huge-body", fails(502, "malformed", 2), |dialect, asked| {
            reply(200, "", &dialect.whole(&"huge ".repeat(3_600_000), Tokens::of(asked)))
        }));
        rows.push(both(
            "no-choices",
            || fails(502, "malformed", 2),
            |_, _| reply(200, "", &json!({"id":"x","object":"chat.completion"}).to_string()),
        ));
    }
    rows
}

/// A valid stream with a wrong media type: the body decides.
fn mislabelled(name: &'static str, kind: &'static str) -> Fault {
    let make: Make = Box::new(move |dialect, asked| {
        let tokens = Tokens::of(asked);
        let preamble = dialect.preamble(tokens).unwrap_or_default();
        typed(200, kind, "", &(preamble + &dialect.text("so it is", tokens) + &dialect.finish(tokens).concat()))
    });
    let answer = || Expect::Answer("so it is".to_owned());
    Fault { name, endpoint: "bad", streamed: answer(), plain: answer(), make }
}

pub(super) fn anthropics() -> Vec<Fault> {
    let spend = json!({"type":"error","error":{"type":"rate_limit_error","message":"no",
        "details":{"error_code":"enforced_spend_limit_reached"}}});
    vec![
        status(529, "529", "upstream_error", 529, 2),
        both(
            "413",
            || fails(413, "invalid_request", 1),
            |d, _| reply(413, "", &d.error(413, "request_too_large", "no")),
        ),
        both("429-spend", || fails(429, "quota_exhausted", 1), move |_, _| reply(429, "", &spend.to_string())),
        limited("429-seconds", 2, 1..=1, || "retry-after: 1\r\n".to_owned()),
        both(
            "402-billing",
            || fails(502, "quota_exhausted", 1),
            |d, _| reply(402, "", &d.error(402, "billing_error", "no")),
        ),
        // This vendor marks the end of its streams; a connection that ends without the mark was cut.
        stream("no-message-stop", Expect::Answer("so".to_owned()), |d, t| {
            let finish = d.finish(t);
            vec![chunk(d.text("so", t)), chunk(finish[..2].concat()), end()]
        }),
        stream("pings-after-token", Expect::Broken { code: "timeout" }, |d, t| {
            let ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
            let again = format!("{:x}\r\n{ping}\r\n", ping.len()).into_bytes();
            vec![chunk(d.text("so", t)), Step::Forever(again, Duration::from_millis(100))]
        }),
    ]
}

pub(super) fn googles() -> Vec<Fault> {
    let key = json!([{"error":{"code":400,"message":"API key not valid","status":"INVALID_ARGUMENT","details":[
        {"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}]);
    let retry = |delay: &str| {
        json!([{"error":{"code":429,"message":"no","status":"RESOURCE_EXHAUSTED","details":[
            {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":delay}]}}])
        .to_string()
    };
    let (soon, late) = (retry("0.4s"), retry("46s"));
    let after =
        |attempts, after| Expect::Fails { status: 429, code: "rate_limited", attempts, retry_after: Some(after) };
    vec![
        both("400-key", || fails(502, "upstream_auth", 1), move |_, _| reply(400, "", &key.to_string())),
        Fault {
            name: "429-delay-soon",
            endpoint: "bad",
            streamed: after(2, 1..=1),
            plain: after(2, 1..=1),
            make: Box::new(move |_, _| reply(429, "", &soon)),
        },
        Fault {
            name: "429-delay-late",
            endpoint: "bad",
            streamed: after(1, 40..=46),
            plain: after(1, 40..=46),
            make: Box::new(move |_, _| reply(429, "", &late)),
        },
        // If there is no quota at all, waiting does not help, whatever the vendor advises.
        both(
            "429-none-at-all",
            || fails(429, "quota_exhausted", 1),
            |d, _| {
                let message = "Quota exceeded, limit: 0. Please retry in 46s.";
                reply(429, "retry-after: 46\r\n", &d.error(429, "RESOURCE_EXHAUSTED", message))
            },
        ),
        status(503, "503", "upstream_error", 503, 2),
        stream("blocked-prompt", Expect::Answer(String::new()), |_, t| {
            let usage = json!({"promptTokenCount":t.input,"cachedContentTokenCount":t.cached,
                "candidatesTokenCount":t.output,"totalTokenCount":t.input + t.output});
            vec![chunk(data(&json!({"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":usage}))), end()]
        }),
    ]
}
