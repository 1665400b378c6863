//! Merges captions into turns: continuous speech of one speaker is one turn, however many cues show it.
//!
//! Knows no format.

use super::{LeftOut, Turn, append};

/// A pause of a speaker up to this length does not end the turn, ms.
const GAP_MS: u64 = 2_000;
/// As [`GAP_MS`], in the middle of a sentence.
const OPEN_GAP_MS: u64 = 5_000;
/// A turn of this many characters ends with its sentence: evidence refers to turns, and a long turn is imprecise.
pub(super) const LONG_CHARS: usize = 600;
/// A turn of this many characters ends with its cue.
pub(super) const LONGEST_CHARS: usize = 2_400;

/// A part of a cue by one speaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) line: usize,
    pub(super) speaker: Option<String>,
    pub(super) text: String,
    pub(super) start_ms: u64,
    pub(super) end_ms: u64,
    /// Set if the file says that another speaker begins here, without naming the speaker.
    pub(super) apart: bool,
}

/// The turns of all pieces, sorted by start (stable), and the names without any speech.
pub(super) fn merge(mut pieces: Vec<Piece>) -> (Vec<Turn>, Vec<LeftOut>) {
    pieces.sort_by_key(|piece| piece.start_ms);
    let (mut turns, mut left_out): (Vec<Turn>, Vec<LeftOut>) = (Vec::new(), Vec::new());
    let mut characters = 0;
    for piece in pieces {
        let said = piece.text.trim();
        if said.is_empty() {
            left_out.extend(piece.speaker.is_some().then(|| LeftOut::name(piece.line)));
            continue;
        }
        let length = said.chars().count();
        if let Some(turn) = turns.last_mut().filter(|turn| !piece.apart && goes_on(turn, &piece, characters)) {
            append(&mut turn.text, said);
            turn.end_ms = turn.end_ms.max(piece.end_ms);
            characters += length;
            continue;
        }
        characters = length;
        let Piece { line, speaker, start_ms, end_ms, .. } = &piece;
        let speaker = speaker.clone();
        turns.push(Turn { line: *line, speaker, text: said.to_owned(), start_ms: *start_ms, end_ms: *end_ms });
    }
    (turns, left_out)
}

fn goes_on(turn: &Turn, piece: &Piece, characters: usize) -> bool {
    let ended = ends_sentence(&turn.text);
    let gap = if ended { GAP_MS } else { OPEN_GAP_MS };
    let is_full = characters >= LONGEST_CHARS || (characters >= LONG_CHARS && ended);
    turn.speaker == piece.speaker && !is_full && piece.start_ms < turn.end_ms.saturating_add(gap)
}

/// Returns true if a text ends with punctuation that ends a sentence, in any script.
pub(super) fn ends_sentence(text: &str) -> bool {
    let text = text.trim_end_matches(['"', '\'', ')', ']', '”', '’', '»', '」', '』', ' ']);
    text.ends_with(['.', '!', '?', '…', '。', '！', '？', '؟', '۔', '।', '።'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(speaker: &str, text: &str, start_ms: u64, end_ms: u64) -> Piece {
        let speaker = Some(speaker.to_owned()).filter(|name| !name.is_empty());
        Piece { line: 1, speaker, text: text.to_owned(), start_ms, end_ms, apart: false }
    }

    fn read(pieces: Vec<Piece>) -> Vec<(String, String, u64, u64)> {
        let plain = |turn: Turn| (turn.speaker.unwrap_or_default(), turn.text, turn.start_ms, turn.end_ms);
        merge(pieces).0.into_iter().map(plain).collect()
    }

    fn turn(speaker: &str, text: &str, start_ms: u64, end_ms: u64) -> (String, String, u64, u64) {
        (speaker.to_owned(), text.to_owned(), start_ms, end_ms)
    }

    #[test]
    fn cues_of_one_speaker_are_one_turn_up_to_a_pause() {
        let turns = read(vec![
            piece("A", "One", 0, 1_000),
            piece("A", " two. ", 4_999, 6_000),
            piece("A", "Three.", 7_999, 9_000),
            piece("A", "Four.", 11_000, 12_000),
            piece("B", "Five", 11_500, 11_600),
            piece("B", "", 11_700, 11_800),
            piece("B", "six", 16_600, 17_000),
        ]);
        assert_eq!(
            turns,
            [
                turn("A", "One two. Three.", 0, 9_000),
                turn("A", "Four.", 11_000, 12_000),
                turn("B", "Five", 11_500, 11_600),
                turn("B", "six", 16_600, 17_000),
            ]
        );
    }

    #[test]
    fn cues_out_of_order_are_put_in_order_and_overlaps_stay() {
        let turns = read(vec![
            piece("B", "Late.", 9_000, 9_500),
            piece("A", "First", 0, 8_000),
            piece("B", "Meanwhile.", 1_000, 2_000),
            piece("A", "last.", 3_000, 4_000),
        ]);
        assert_eq!(
            turns,
            [
                turn("A", "First", 0, 8_000),
                turn("B", "Meanwhile.", 1_000, 2_000),
                turn("A", "last.", 3_000, 4_000),
                turn("B", "Late.", 9_000, 9_500),
            ]
        );
        assert_eq!(read(vec![piece("A", "a", 0, 9_000), piece("A", "b", 1_000, 2_000)]), [turn("A", "a b", 0, 9_000)]);
    }

    #[test]
    fn long_turns_end_with_a_sentence_and_the_longest_with_a_cue() {
        let sentence = piece("A", &"word ".repeat(140), 0, 1_000);
        let with = |text: &str| Piece { text: format!("{}{text}", sentence.text), ..sentence.clone() };
        assert_eq!(read(vec![with("end."), piece("A", "Next.", 1_000, 2_000)]).len(), 2);
        assert_eq!(read(vec![with("end"), piece("A", "next.", 1_000, 2_000)]).len(), 1);
        let endless = (0..10).map(|_| sentence.clone()).collect::<Vec<_>>();
        assert_eq!(read(endless).len(), 3);
        assert_eq!(read(vec![piece("", "はい", 0, 1), piece("", "そう。", 1, 2)]), [turn("", "はいそう。", 0, 2)]);
    }

    #[test]
    fn names_without_words_are_reported() {
        let pieces = vec![piece("A", " ", 0, 1), piece("", "", 0, 1), piece("B", "b", 0, 1)];
        let (turns, left_out) = merge(pieces);
        assert_eq!((turns.len(), left_out), (1, vec![LeftOut::name(1)]));
    }

    #[test]
    fn another_speaker_without_a_name_is_another_turn() {
        let other = Piece { apart: true, ..piece("", "Where?", 1_000, 2_000) };
        assert_eq!(read(vec![piece("", "What", 0, 1_000), other]).len(), 2);
    }
}
