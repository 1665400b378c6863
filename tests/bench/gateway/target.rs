//! The targets of the bench, and the requests to them.

use std::time::Duration;

use super::common::process;

/// The target of requests: the mock itself, Sidetone, or another gateway.
pub struct Target {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) pid: Option<u32>,
    pub(super) path: String,
    pub(super) model: String,
    pub(super) key: Option<String>,
    pub(super) idle: u64,
}

impl Target {
    /// `NAME,PID,PORT,PATH,MODEL,KEY`.
    pub fn peer(text: &str) -> Self {
        let parts: Vec<&str> = text.split(',').collect();
        let [name, pid, port, path, model, key] = parts[..] else {
            panic!("--peer: expected NAME,PID,PORT,PATH,MODEL,KEY, found {text:?}")
        };
        let pid = pid.parse().expect("a process id");
        Self {
            name: name.to_owned(),
            port: port.parse().expect("a port"),
            pid: Some(pid),
            path: path.to_owned(),
            model: model.to_owned(),
            key: (!key.is_empty()).then(|| key.to_owned()),
            idle: process::rss(pid),
        }
    }

    /// A request whose prompt is `answer`, in the mock's words.
    pub(super) fn request(&self, answer: &str) -> Vec<u8> {
        let streamed =
            if answer.contains('c') { ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" } else { "" };
        let body = format!(
            "{{\"model\":\"{}\",\"messages\":[{{\"role\":\"system\",\"content\":\"You help people on the phone. You \
             answer {answer}.\"}},{{\"role\":\"user\",\"content\":\"I called about my order last week, and nobody has come \
             back to me.\"}}],\"temperature\":0.5{streamed}}}",
            self.model
        );
        let key = self.key.as_ref().map_or_else(String::new, |key| format!("authorization: Bearer {key}\r\n"));
        format!(
            "POST {} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-type: application/json\r\n{key}content-length: {}\r\n\r\n{body}",
            self.path,
            self.port,
            body.len()
        )
        .into_bytes()
    }

    pub(super) fn cpu(&self) -> Duration {
        self.pid.map_or(Duration::ZERO, process::cpu)
    }
}
