//! `sidetone stream`: sends a WAV file to a v3 endpoint in real time, and shows turns and answers as they arrive.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use owo_colors::OwoColorize as _;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::call_id;
use super::out::say;
use super::screen::harmless;
use super::target::DEFAULT_LISTEN;
use crate::base::surrogates;
use crate::base::ws::{self, Incoming, Utf8Bytes};
use crate::protocol::CloseCode;

/// Duration of the audio in one message.
const CHUNK: Duration = Duration::from_millis(50);
/// Time that the vendor has to finish after the audio.
const LAST_WORDS: Duration = Duration::from_secs(30);
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Sample rates that the vendor accepts, Hz.
const RATES: std::ops::RangeInclusive<u32> = 8_000..=96_000;

/// Options of `sidetone stream`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone stream call.wav                                           through the daemon on this machine
  sidetone stream call.wav --to wss://streaming.assemblyai.com --api-key-env ASSEMBLYAI_API_KEY
  sidetone stream call.wav --param speaker_labels=true --analyses summary,sentiment

The file is PCM of 16 bits, its channels mixed into one, or mu-law in one channel, at 8 to 96 kHz.
For a daemon that requires a key: --api-key-env SIDETONE_KEY.")]
pub(crate) struct StreamArgs {
    /// WAV file
    #[arg(value_name = "FILE.wav", value_parser = super::absolute())]
    file: PathBuf,
    /// The endpoint; without a path, /v3/ws is used
    #[arg(long, value_name = "URL", default_value_t = format!("ws://{DEFAULT_LISTEN}"))]
    to: String,
    /// Environment variable that contains the API key
    #[arg(long, value_name = "VAR")]
    api_key_env: Option<String>,
    /// A further query parameter; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = pair)]
    params: Vec<(String, String)>,
    /// Id of the call, for a daemon; default: the vendor's session id
    #[arg(long, value_name = "ID", value_parser = call_id)]
    call_id: Option<String>,
    /// Analyses whose insights arrive on the same socket, for a daemon
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    analyses: Vec<String>,
    /// Playback speed as a multiple of real time
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=100))]
    speed: u16,
    /// Print the endpoint's messages unchanged, one per line
    #[arg(long)]
    json: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs the command.
///
/// # Errors
/// The file has a format that is not supported, or the endpoint cannot be reached or fails.
pub(crate) async fn run(args: StreamArgs) -> Result<ExitCode> {
    let bytes = std::fs::read(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let audio = Audio::read(&bytes).map_err(|why| anyhow!("{}: {why}", args.file.display()))?;
    let url = url(&args, &audio)?;
    let mut headers = HeaderMap::new();
    if let Some(variable) = &args.api_key_env {
        let key = std::env::var(variable).map_err(|_| anyhow!("environment variable {variable} is not set"))?;
        let mut value = HeaderValue::from_str(key.trim()).with_context(|| {
            format!(
                "the value of {variable} is not \
            allowed in a header"
            )
        })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let socket =
        ws::connect(url.as_str(), &headers, MAX_MESSAGE_BYTES, Duration::from_secs(10)).await.map_err(|error| {
            // The query may contain private values.
            let at = format!("{}{}", &url[..url::Position::BeforePath], url.path());
            anyhow!(
                "no session at {at}: {error}; start a daemon with `sidetone serve`, or name another endpoint with \
                --to"
            )
        })?;
    let (mut reader, mut writer) = socket.split();
    let chunks = audio.chunks();
    let speak = async {
        let mut ticks = interval(CHUNK / u32::from(args.speed));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for chunk in chunks {
            ticks.tick().await;
            if writer.relay([Incoming::Binary(chunk)]).await.is_err() {
                return;
            }
        }
        let goodbye = Utf8Bytes::from_static(r#"{"type":"Terminate"}"#);
        // If the endpoint is gone, the reading side reports it.
        let _ = writer.relay([Incoming::Text(goodbye)]).await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    let began = Instant::now();
    let listen = async {
        loop {
            match reader.recv().await {
                Ok(Incoming::Text(text)) => show(&text, args.json, began)?,
                Ok(Incoming::Closed { code, reason }) => return Ok((code, reason)),
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
        }
    };
    tokio::select! {
        ended = listen => match ended {
            Ok((code, _)) if code == CloseCode::Done.number() => Ok(ExitCode::SUCCESS),
            Ok((code, reason)) => bail!("the endpoint closed the session: {code} {}", harmless(&reason)),
            Err(error) => Err(error),
        },
        () = speak => bail!("the endpoint did not end the session within {} s", LAST_WORDS.as_secs()),
    }
}

fn url(args: &StreamArgs, audio: &Audio) -> Result<url::Url> {
    let to = args.to.replacen("http", "ws", 1);
    let mut url = url::Url::parse(&to).with_context(|| format!("--to: {to:?} is not a URL"))?;
    if !matches!(url.scheme(), "ws" | "wss") {
        bail!("--to: expected ws://, wss://, http:// or https://, found {}", args.to);
    }
    if matches!(url.path(), "" | "/") {
        url.set_path("/v3/ws");
    }
    {
        let mut query = url.query_pairs_mut();
        query.append_pair("sample_rate", &audio.rate.to_string()).append_pair("encoding", audio.encoding());
        for (name, value) in &args.params {
            query.append_pair(name, value);
        }
        if args.call_id.is_some() || !args.analyses.is_empty() {
            // Without named analyses, the call runs the default ones.
            let analyses = Some(&args.analyses).filter(|names| !names.is_empty());
            let results = if analyses.is_none() { "none" } else { "insights" };
            let ours = serde_json::json!({"call_id": args.call_id, "analyses": analyses, "results": results});
            query.append_pair("sidetone", &ours.to_string());
        }
    }
    Ok(url)
}

fn show(text: &str, json: bool, began: Instant) -> Result<()> {
    if json {
        return say!("{text}");
    }
    let message: Value = surrogates::from_str(text).unwrap_or(Value::Null);
    let at = format!("{:7.1}s", began.elapsed().as_secs_f32());
    let text = |value: &Value| harmless(value.as_str().unwrap_or_default());
    match message["type"].as_str().unwrap_or_default() {
        "Begin" => say!("{} session {}", at.dimmed(), text(&message["id"]))?,
        "Turn" if message["end_of_turn"] == true => {
            let speaker = message["speaker_label"].as_str().map(|label| format!("{}: ", harmless(label)));
            let speaker = speaker.unwrap_or_default();
            say!("{} {}{}", at.dimmed(), speaker.bold(), text(&message["transcript"]))?;
        }
        "LLMGatewayResponse" => {
            let data = &message["data"];
            if data["type"] == "error" {
                anstream::eprintln!("{} {} {}", "error:".red(), text(&data["code"]), text(&data["message"]));
                return Ok(());
            }
            let shown = match (&data["choices"][0]["message"]["content"], &data["insight"]) {
                (Value::String(answer), _) => harmless(answer),
                (_, Value::Object(insight)) => {
                    let name = insight.get("analysis").and_then(Value::as_str).unwrap_or_default();
                    let value = insight.get("value").map(Value::to_string).unwrap_or_default();
                    format!("{name} {}", harmless(&value))
                }
                _ => harmless(&data.to_string()),
            };
            say!("{} {}", at.dimmed(), shown.cyan())?;
        }
        "Error" => anstream::eprintln!("{} {} {}", "error:".red(), message["error_code"], text(&message["error"])),
        _ => {}
    }
    Ok(())
}

/// The audio of a WAV file, in one channel.
#[derive(Debug, PartialEq, Eq)]
struct Audio {
    rate: u32,
    mulaw: bool,
    bytes: Vec<u8>,
}

impl Audio {
    fn encoding(&self) -> &'static str {
        if self.mulaw { "pcm_mulaw" } else { "pcm_s16le" }
    }

    /// The audio in messages; the last one is padded with silence, because the vendor accepts no shorter ones.
    fn chunks(&self) -> Vec<Bytes> {
        let sample = if self.mulaw { 1 } else { 2 };
        let samples = self.rate as usize * usize::try_from(CHUNK.as_millis()).unwrap_or(50);
        // Rounded up, because the vendor accepts nothing below 50 ms.
        let samples = samples.div_ceil(1000);
        let silence = if self.mulaw { 0xff } else { 0 };
        self.bytes
            .chunks(samples * sample)
            .map(|chunk| {
                let mut chunk = chunk.to_vec();
                chunk.resize(samples * sample, silence);
                Bytes::from(chunk)
            })
            .collect()
    }

    /// Reads a RIFF file.
    fn read(file: &[u8]) -> Result<Self, String> {
        if file.len() < 12 || &file[..4] != b"RIFF" || &file[8..12] != b"WAVE" {
            return Err(
                "not a WAV file: it does not begin with RIFF and WAVE (`ffmpeg -i FILE -c:a pcm_s16le OUT.wav` makes \
                 one)"
                    .to_owned(),
            );
        }
        let (mut format, mut data) = (None, None);
        let mut rest = &file[12..];
        while rest.len() >= 8 && data.is_none() {
            let size = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
            // A file that was truncated, or written to a pipe, declares more data than it has.
            let end = (8 + size).min(rest.len());
            match &rest[..4] {
                b"fmt " if end >= 24 => format = Some(&rest[8..end]),
                b"data" => data = Some(&rest[8..end]),
                _ => {}
            }
            rest = rest.get(end + size % 2..).unwrap_or_default();
        }
        let format = format.ok_or("the file has no format chunk")?;
        let data = data.filter(|data| !data.is_empty()).ok_or("the file has no audio")?;
        let short = |at: usize| u16::from_le_bytes([format[at], format[at + 1]]);
        // 0xFFFE means that the format code is in the extension.
        let kind = if short(0) == 0xfffe && format.len() >= 26 { short(24) } else { short(0) };
        let (channels, bits) = (usize::from(short(2)), short(14));
        let rate = u32::from_le_bytes([format[4], format[5], format[6], format[7]]);
        if !RATES.contains(&rate) || channels == 0 {
            return Err(format!(
                "expected {} to {} Hz, found {rate} Hz in {channels} channels",
                RATES.start(),
                RATES.end()
            ));
        }
        match (kind, bits) {
            (1, 16) => Ok(Self { rate, mulaw: false, bytes: mixed(data, channels) }),
            (7, 8) if channels == 1 => Ok(Self { rate, mulaw: true, bytes: data.to_vec() }),
            _ => {
                let name = match kind {
                    1 => "PCM".to_owned(),
                    3 => "floating point".to_owned(),
                    6 => "A-law".to_owned(),
                    7 => "mu-law".to_owned(),
                    other => format!("format {other}"),
                };
                let channels = if channels == 1 { "one channel".to_owned() } else { format!("{channels} channels") };
                Err(format!(
                    "expected PCM of 16 bits, or mu-law in one channel; found {name} of {bits} bits in {channels} \
                     (`ffmpeg -i FILE -c:a pcm_s16le OUT.wav` makes one)"
                ))
            }
        }
    }
}

fn mixed(data: &[u8], channels: usize) -> Vec<u8> {
    if channels == 1 {
        return data[..data.len() / 2 * 2].to_vec();
    }
    data.chunks_exact(2 * channels)
        .flat_map(|frame| {
            let sum: i32 = frame.chunks_exact(2).map(|pair| i32::from(i16::from_le_bytes([pair[0], pair[1]]))).sum();
            let mean = sum / i32::try_from(channels).unwrap_or(1);
            i16::try_from(mean).unwrap_or(0).to_le_bytes()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(kind: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
        file.extend(kind.to_le_bytes());
        file.extend(channels.to_le_bytes());
        file.extend(rate.to_le_bytes());
        file.extend((rate * u32::from(channels) * u32::from(bits) / 8).to_le_bytes());
        file.extend((channels * bits / 8).to_le_bytes());
        file.extend(bits.to_le_bytes());
        file.extend(b"LIST\x03\0\0\0abc\0data");
        file.extend(u32::try_from(data.len()).expect("short").to_le_bytes());
        file.extend(data);
        file
    }

    #[test]
    fn files_are_read_mixed_and_cut() {
        let stereo: Vec<u8> = [100i16, 300, -2, -4].iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let audio = Audio::read(&wav(1, 2, 8000, 16, &stereo)).expect("stereo");
        assert_eq!(audio.bytes, [200i16.to_le_bytes(), (-3i16).to_le_bytes()].concat());
        let chunks = audio.chunks();
        assert_eq!((chunks.len(), chunks[0].len()), (1, 800));
        let mulaw = Audio::read(&wav(7, 1, 8000, 8, &[0; 401])).expect("mu-law");
        assert_eq!((mulaw.encoding(), mulaw.chunks().len(), mulaw.chunks()[1][399]), ("pcm_mulaw", 2, 0xff));
    }

    #[test]
    fn every_chunk_is_as_long_as_the_vendor_takes_at_any_rate() {
        for rate in [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000] {
            for (kind, bits, sample) in [(1, 16, 2), (7, 8, 1)] {
                let data: Vec<u8> = (0..rate as usize * sample * 3 / 2).map(|byte| byte.to_le_bytes()[0]).collect();
                let audio = Audio::read(&wav(kind, 1, rate, bits, &data)).expect("audio");
                assert_eq!(audio.rate, rate, "it goes as it is");
                let chunks = audio.chunks();
                for chunk in &chunks {
                    let ms = chunk.len() as f64 / sample as f64 * 1000.0 / f64::from(rate);
                    assert!((50.0..51.0).contains(&ms), "{rate} Hz: {ms} ms");
                }
                let sent = chunks.concat();
                assert_eq!(sent[..audio.bytes.len()], audio.bytes, "{rate} Hz");
                assert!(sent.len() - audio.bytes.len() < chunks[0].len(), "{rate} Hz");
            }
        }
        assert!(Audio::read(&wav(1, 1, 6_000, 16, &[0; 8])).is_err_and(|why| why.contains("8000 to 96000 Hz")));
    }

    #[test]
    fn other_files_are_told_what_is_expected() {
        assert!(Audio::read(b"hello").is_err());
        assert!(
            Audio::read(&wav(3, 1, 16000, 32, &[0; 8]))
                .is_err_and(|why| why.contains("floating point of 32 bits in one channel"))
        );
        assert_eq!(Audio::read(&wav(1, 1, 16000, 16, &[])), Err("the file has no audio".to_owned()));
        assert!(Audio::read(&wav(1, 1, 4000, 16, &[0; 8])).is_err_and(|why| why.contains("8000 to 96000")));
        assert!(Audio::read(&wav(1, 1, 8000, 16, &[])[..30]).is_err());
    }
}
