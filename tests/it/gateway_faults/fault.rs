//! One fault: what the vendor does, what the caller must get, and how rows are made.

use std::ops::RangeInclusive;

use crate::support::vendor::{Asked, Dialect, Step, Tokens, chunk, reply, stream_head};

/// What the caller must get.
pub(super) enum Expect {
    /// The fault does not exist in this form.
    Skip,
    /// A complete answer.
    Answer(String),
    /// Nothing that the caller may get: an error, or the next candidate's answer.
    Fails { status: u16, code: &'static str, attempts: usize, retry_after: Option<RangeInclusive<u64>> },
    /// The start of an answer, then an error event.
    Broken { code: &'static str },
}

pub(super) type Make = Box<dyn Fn(Dialect, &Asked) -> Vec<Step> + Send + Sync>;

/// One fault.
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// The endpoint: `bad` is the scripted vendor.
    pub(super) endpoint: &'static str,
    pub(super) streamed: Expect,
    pub(super) plain: Expect,
    pub(super) make: Make,
}

impl Fault {
    pub(super) fn reply(&self, dialect: Dialect, asked: &Asked) -> Vec<Step> {
        (self.make)(dialect, asked)
    }
}

pub(super) fn fails(status: u16, code: &'static str, attempts: usize) -> Expect {
    Expect::Fails { status, code, attempts, retry_after: None }
}

/// The same whether streamed or not.
pub(super) fn both(
    name: &'static str,
    expect: fn() -> Expect,
    make: impl Fn(Dialect, &Asked) -> Vec<Step> + Send + Sync + 'static,
) -> Fault {
    Fault { name, endpoint: "bad", streamed: expect(), plain: expect(), make: Box::new(make) }
}

pub(super) fn elsewhere(name: &'static str, endpoint: &'static str, expect: fn() -> Expect) -> Fault {
    Fault { name, endpoint, streamed: expect(), plain: expect(), make: Box::new(|_, _| vec![Step::Close]) }
}

/// A faulty stream.
pub(super) fn stream(
    name: &'static str,
    expect: Expect,
    make: impl Fn(Dialect, Tokens) -> Vec<Step> + Send + Sync + 'static,
) -> Fault {
    let make: Make = Box::new(move |dialect, asked| {
        let tokens = Tokens::of(asked);
        let mut steps = vec![stream_head()];
        steps.extend(dialect.preamble(tokens).map(chunk));
        steps.extend(make(dialect, tokens));
        steps
    });
    Fault { name, endpoint: "bad", streamed: expect, plain: Expect::Skip, make }
}

/// A faulty whole body.
pub(super) fn plain(
    name: &'static str,
    expect: Expect,
    make: impl Fn(Dialect, &Asked) -> Vec<Step> + Send + Sync + 'static,
) -> Fault {
    Fault { name, endpoint: "bad", streamed: Expect::Skip, plain: expect, make: Box::new(make) }
}

/// An error status.
pub(super) fn status(status: u16, name: &'static str, code: &'static str, ours: u16, attempts: usize) -> Fault {
    let kind = match code {
        "invalid_request" => "invalid_request_error",
        "upstream_auth" => "authentication_error",
        _ => "api_error",
    };
    let expect = || fails(ours, code, attempts);
    Fault {
        name,
        endpoint: "bad",
        streamed: expect(),
        plain: expect(),
        make: Box::new(move |dialect, _| reply(status, "", &dialect.error(status, kind, "no"))),
    }
}

/// 429, with headers.
pub(super) fn limited(
    name: &'static str,
    attempts: usize,
    after: RangeInclusive<u64>,
    headers: impl Fn() -> String + Send + Sync + 'static,
) -> Fault {
    let expect = || Expect::Fails { status: 429, code: "rate_limited", attempts, retry_after: Some(after.clone()) };
    let make: Make = Box::new(move |dialect, _| {
        let kind = if dialect == Dialect::Google { "RESOURCE_EXHAUSTED" } else { "rate_limit_error" };
        reply(429, &headers(), &dialect.error(429, kind, "slow down"))
    });
    Fault { name, endpoint: "bad", streamed: expect(), plain: expect(), make }
}
