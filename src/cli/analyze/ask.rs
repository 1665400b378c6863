//! Asks the daemon about one file: `POST /v1/transcripts`, and the turns of the call that it made.
//!
//! Knows no output.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cli::input::Input;
use crate::cli::target::Target;
use crate::cli::{fetch, turns};
use crate::types::Turn;

/// The request about a file.
pub(super) struct Question<'a> {
    pub(super) input: &'a Input,
    /// Names of analyses; empty for the daemon's default.
    pub(super) analyses: &'a [String],
    /// Metadata, a JSON object.
    pub(super) meta: Option<&'a str>,
    pub(super) patience: Duration,
}

/// The daemon's answer.
pub(super) struct Answer {
    /// The body of the answer.
    pub(super) body: Value,
    /// The call's turns; empty if the key may not read them.
    pub(super) turns: Vec<Turn>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    turns: Option<Vec<Said<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recording: Option<Vec<&'a RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dialect: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    analyses: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Said<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    speaker: Option<&'a str>,
    text: &'a str,
    start_ms: u64,
    end_ms: u64,
}

impl Question<'_> {
    /// Sends the request.
    ///
    /// # Errors
    /// The daemon does not answer in time, or refuses.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; the daemon keeps the call.
    pub(super) async fn ask(&self, target: &Target) -> Result<Answer> {
        let body = self.body()?;
        let body = fetch::post_within(target, "/v1/transcripts", body, self.patience).await?;
        let call = body["call_id"].as_str().unwrap_or_default();
        // A key may have the scope to analyse but none to read calls: then evidence has turn numbers and no times.
        let turns = turns::list(target, call, self.patience).await.unwrap_or_default();
        Ok(Answer { body, turns })
    }

    fn body(&self) -> Result<String> {
        let meta = self.meta.map(serde_json::from_str::<&RawValue>).transpose().context("--meta")?;
        let mut body = Body { turns: None, recording: None, dialect: None, analyses: self.analyses, meta };
        match self.input {
            Input::Recording(recording) => {
                let frames = recording.frames.iter().map(|frame| serde_json::from_str::<&RawValue>(&frame.message));
                body.recording = Some(frames.collect::<Result<_, _>>()?);
                body.dialect = Some(&recording.header.dialect);
            }
            Input::Transcript(_, transcript) => {
                let turns = transcript.turns.iter().map(|turn| Said {
                    speaker: turn.speaker.as_deref(),
                    text: &turn.text,
                    start_ms: turn.start_ms,
                    end_ms: turn.end_ms,
                });
                body.turns = Some(turns.collect());
            }
        }
        Ok(serde_json::to_string(&body)?)
    }
}
