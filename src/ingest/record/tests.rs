//! What is recorded, and the names of the files.

use std::collections::HashMap;

use super::*;
use crate::recording;

fn recorded(config: RecordConfig, frames: &[&'static str]) -> Vec<(String, recording::Recording)> {
    let recorder = Recorder::start(Some(config.clone()), &mut Registry::default()).expect("recorder");
    let (call, stream) = (CallId::parse("c_1").expect("id"), StreamId::parse("s_1").expect("id"));
    let track = recorder.track(&call, &stream, "assemblyai").expect("track");
    for frame in frames {
        track.frame(&Utf8Bytes::from_static(frame));
    }
    drop(track);
    let wanted = frames.iter().filter(|frame| frame.starts_with('{')).count();
    read(&config.dir, wanted)
}

/// The folder's recordings by name, once they contain this many frames.
fn read(dir: &Path, wanted: usize) -> Vec<(String, recording::Recording)> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut files: Vec<_> =
            std::fs::read_dir(dir).expect("dir").map(|entry| entry.expect("entry").path()).collect();
        files.sort();
        let read: Option<Vec<_>> = files
            .iter()
            .map(|path| {
                let recording = recording::parse(&std::fs::read_to_string(path).expect("text")).ok()?;
                Some((path.file_name()?.to_string_lossy().into_owned(), recording))
            })
            .collect();
        match read {
            Some(read) if read.iter().map(|(_, recording)| recording.frames.len()).sum::<usize>() == wanted => {
                return read;
            }
            _ => assert!(Instant::now() < deadline, "not all written: {files:?}"),
        }
        std::thread::yield_now();
    }
}

#[test]
fn file_names_are_unique_per_stream_and_not_too_long() {
    let of = |call: &str, stream: &str| stem(&CallId::parse(call).expect("id"), &StreamId::parse(stream).expect("id"));
    assert_eq!(of("c_1", "s_1"), "c_1.s_1");
    assert_eq!(of("a.b", "c"), "a%2Eb.c");
    let (long, longer) = ("x".repeat(127), "x".repeat(128));
    let dots = format!("a{}", ".".repeat(127));
    let ids = ["a", "b", "c", "a.b", "b.c", "2", "a.2", &long, &longer, &dots];
    let mut stems = HashMap::new();
    for call in ids {
        for stream in ids {
            let stem = of(call, stream);
            assert!(stem.len() <= STEM_BYTES && stem.is_ascii() && !stem.starts_with('.'), "{stem}");
            // The name has only one dot, so it cannot be the name of another stream's second file.
            assert_eq!((stem.matches('.').count(), stems.insert(stem.clone(), (call, stream))), (1, None), "{stem}");
        }
    }
}

#[test]
fn frames_are_written_verbatim_and_files_rotate() {
    let folder = tempfile::tempdir().expect("folder");
    let config = RecordConfig { dir: folder.path().into(), words: true, max_file_bytes: 200 };
    let frame = r#"{"type":"Turn",  "turn_order":0, "words":[{"text":"a"}]}"#;
    let files = recorded(config, &[frame, "no JSON", frame, frame, frame, frame]);
    assert!(files.len() > 1, "{files:?}");
    assert_eq!(files[0].0, "c_1.s_1.2.jsonl");
    for (_, recording) in &files {
        assert_eq!(recording.header.dialect, "assemblyai");
        assert!(recording.frames.iter().all(|written| &*written.message == frame));
    }
}

#[test]
fn words_may_be_left_out() {
    let folder = tempfile::tempdir().expect("folder");
    let config = RecordConfig { dir: folder.path().into(), words: false, max_file_bytes: 1 << 20 };
    let files = recorded(config, &[r#"{"type":"Turn","words":[{"text":"a"}],"x":[{"words":[1]}]}"#]);
    assert_eq!(&*files[0].1.frames[0].message, r#"{"type":"Turn","words":[],"x":[{"words":[]}]}"#);
}

#[test]
fn reconnect_continues_in_the_next_file() {
    let folder = tempfile::tempdir().expect("folder");
    let config = RecordConfig { dir: folder.path().into(), words: true, max_file_bytes: 1 << 20 };
    let (call, stream) = (CallId::parse("c_1").expect("id"), StreamId::parse("s_1").expect("id"));
    std::fs::write(
        folder.path().join("c_1.s_1.2.jsonl"),
        format!("{}\n", recording::write_frame(Duration::ZERO, "{}")),
    )
    .expect("an earlier daemon's");
    let recorder = Recorder::start(Some(config), &mut Registry::default()).expect("recorder");
    // The first track still exists, like a connection that is gone without anybody noticing.
    let tracks: Vec<Track> = (0..2).map(|_| recorder.track(&call, &stream, "deepgram").expect("track")).collect();
    for text in [r#"{"n":1}"#, r#"{"n":2}"#] {
        for track in &tracks {
            track.frame(&Utf8Bytes::from_static(text));
        }
    }
    let files = read(folder.path(), 5);
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["c_1.s_1.2.jsonl", "c_1.s_1.3.jsonl", "c_1.s_1.jsonl"]);
    for (_, recording) in &files[1..] {
        let frames: Vec<&str> = recording.frames.iter().map(|frame| &*frame.message).collect();
        assert_eq!(frames, [r#"{"n":1}"#, r#"{"n":2}"#]);
    }
}

#[test]
fn removed_file_is_followed_by_another() {
    let folder = tempfile::tempdir().expect("folder");
    let config = RecordConfig { dir: folder.path().into(), words: true, max_file_bytes: 1 << 20 };
    let name = Arc::new(Name { number: 0, stem: "c.s".to_owned(), dialect: "sidetone" });
    let dropped = Counter::default();
    let mut writer = Writer::new(config, dropped.clone());
    let mut put = |text: &str, close: bool| {
        let line = Line { track: Arc::clone(&name), at: Duration::ZERO, message: None };
        writer.add(&line, text);
        if close {
            writer.open.values_mut().for_each(|open| open.file = None);
        }
        writer.flush(0);
        (writer.lost.is_some(), dropped.get())
    };
    let path = folder.path().join("c.s.jsonl");
    assert_eq!(put(r#"{"n":1}"#, false), (false, 0));
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(put(r#"{"n":2}"#, true), (true, 1));
    assert_eq!(put(r#"{"n":3}"#, false), (true, 1));
    let recording = recording::parse(&std::fs::read_to_string(&path).expect("text")).expect("recording");
    assert_eq!((recording.frames.len(), &*recording.frames[0].message), (1, r#"{"n":3}"#));
}
