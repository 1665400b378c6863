//! How requests reach a vendor: directly, or through a proxy that the environment names.

use crate::support::daemon::{Daemon, LOCAL_ANALYSES};
use crate::support::vendor::{Dialect, Step, Vendor, reply};
use crate::support::{json, shared};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environment_proxy_gets_only_requests_to_public_hosts() {
    let _machine = shared().await;
    // For the vendor's fake, a request through a proxy differs only in its first line.
    let (proxy, near) = (Vendor::good(Dialect::OpenAi).await, Vendor::good(Dialect::OpenAi).await);
    let config = format!(
        "[endpoints.far]\nprovider = \"openai_compatible\"\nbase_url = \"http://models.far.example/v1/\"\n{}{LOCAL_ANALYSES}",
        near.endpoint("near", "")
    );
    let dir = tempfile::tempdir().expect("folder");
    let mut daemon = Daemon::prepare(&config, dir.path())
        .with_env("HTTP_PROXY", &format!("http://us:them@{}", proxy.address))
        .with_env("NO_PROXY", "other.example");
    daemon.up().await;
    for streamed in [false, true] {
        for model in ["far/m", "near/m"] {
            let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": streamed});
            let answer = daemon.post("/v1/chat/completions", &body).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let last = if streamed { "data: [DONE]" } else { "\"fine\"" };
            assert!(answer.text().contains(last), "{}", answer.text());
        }
    }
    let firsts = |vendor: &Vendor| -> Vec<String> {
        vendor.asked().iter().map(|asked| asked.head.lines().next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(firsts(&proxy), ["POST http://models.far.example/v1/chat/completions HTTP/1.1"; 2]);
    assert_eq!(firsts(&near), ["POST /v1/chat/completions HTTP/1.1"; 2]);
    for (asked, by_proxy) in
        proxy.asked().iter().map(|asked| (asked, true)).chain(near.asked().iter().map(|asked| (asked, false)))
    {
        let head = asked.head.to_ascii_lowercase();
        assert_eq!(head.contains("proxy-authorization: basic dxm6dghlbq=="), by_proxy, "{head}");
        assert!(head.contains("user-agent: sidetone/") && head.contains("content-type: application/json"), "{head}");
    }

    // Failures are reported in the same way.
    let script = |number: u64| if number.is_multiple_of(2) { vec![Step::Reset] } else { reply(503, "", "{}") };
    for vendor in [&proxy, &near] {
        vendor.script(move |asked| script(asked.number));
    }
    let mut told = Vec::new();
    for model in ["far/m", "near/m"] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
        let answer = daemon.post("/v1/chat/completions", &body).await.json();
        let attempts = answer["error"]["attempts"].as_array().cloned().unwrap_or_default();
        let codes: Vec<_> =
            attempts.iter().map(|attempt| (attempt["code"].clone(), attempt["status"].clone())).collect();
        assert!(codes.len() > 1, "{answer}");
        let by_proxy = attempts
            .iter()
            .any(|attempt| attempt["message"].as_str().is_some_and(|text| text.starts_with("by proxy: ")));
        assert_eq!(by_proxy, model == "far/m", "{answer}");
        told.push(codes);
    }
    assert_eq!(told[0], told[1]);
}
