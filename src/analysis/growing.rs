//! Reads one string of an answer while the model writes the answer's JSON, and decodes it piece by piece.
//!
//! Knows no analysis and no socket. Reads leniently, because the answer may turn out to be malformed: everything before
//! the object, and everything that does not lead to the string, is skipped.

/// Reads one answer.
#[derive(Debug, Clone)]
pub struct Growing {
    /// Names of the members that lead to the string, the outermost first; at least one.
    path: Vec<String>,
    reader: Reader,
    /// Number of characters of the string so far.
    shown: u64,
}

/// The state between two characters of the answer.
#[derive(Debug, Clone, Default)]
struct Reader {
    /// Number of open brackets.
    depth: usize,
    /// Number of members of the path that lead to the current value.
    matched: usize,
    /// Set inside the object to which they lead.
    members: bool,
    /// Set if the next string in that object is a member's name.
    expects_name: bool,
    /// The newest name, until its colon.
    name: Option<String>,
    inside: Option<Inside>,
    decoder: Decoder,
    /// Set once the string has ended.
    done: bool,
}

/// A string that has begun and not ended.
#[derive(Debug, Clone)]
enum Inside {
    Name(String),
    Text,
    Other,
}

impl Growing {
    /// A reader for the string to which these members lead, the outermost first.
    pub fn at(path: &[&str]) -> Self {
        Self { path: path.iter().map(|name| (*name).to_owned()).collect(), reader: Reader::default(), shown: 0 }
    }

    /// Reads a piece of the answer that begins at `offset`; 0 starts over. Returns the text that it adds to the string,
    /// and the position of that text in characters.
    pub fn push(&mut self, offset: u64, piece: &str) -> (u64, String) {
        if offset == 0 {
            (self.reader, self.shown) = (Reader::default(), 0);
        }
        let mut text = String::new();
        for character in piece.chars() {
            self.reader.read(character, &self.path, &mut text);
        }
        let at = self.shown;
        self.shown += text.chars().count() as u64;
        (at, text)
    }
}

impl Reader {
    fn read(&mut self, character: char, path: &[String], text: &mut String) {
        if self.done {
            return;
        }
        match self.inside.take() {
            Some(inside) => self.inside_string(inside, character, text),
            None => self.between(character, path),
        }
    }

    fn inside_string(&mut self, mut inside: Inside, character: char, text: &mut String) {
        let ended = match &mut inside {
            Inside::Name(name) => self.decoder.read(character, name),
            Inside::Text => self.decoder.read(character, text),
            Inside::Other => self.decoder.read(character, &mut String::new()),
        };
        match inside {
            Inside::Name(name) if ended => self.name = Some(name),
            Inside::Text if ended => self.done = true,
            Inside::Other if ended => {}
            goes_on => self.inside = Some(goes_on),
        }
    }

    fn between(&mut self, character: char, path: &[String]) {
        match character {
            '{' | '[' => {
                if self.depth == self.matched {
                    self.members = character == '{';
                    self.expects_name = self.members;
                }
                self.depth += 1;
            }
            '}' | ']' => {
                self.depth = self.depth.saturating_sub(1);
                self.matched = self.matched.min(self.depth);
            }
            ',' => {
                if self.depth > 0 && self.depth == self.matched {
                    // The value of a matched member has ended: continue in the object around it.
                    self.matched -= 1;
                    self.members = true;
                }
                self.expects_name = self.members && self.depth == self.matched + 1;
            }
            ':' => {
                let name = self.name.take();
                if name.is_some() && name.as_ref() == path.get(self.matched) {
                    self.matched += 1;
                    self.members = false;
                }
            }
            // A quotation mark in prose before the answer does not open a string.
            '"' if self.depth > 0 => {
                let is_name = self.members && self.depth == self.matched + 1 && std::mem::take(&mut self.expects_name);
                let is_text = self.depth == self.matched && self.matched == path.len();
                self.inside = Some(match (is_name, is_text) {
                    (true, _) => Inside::Name(String::new()),
                    (false, true) => Inside::Text,
                    (false, false) => Inside::Other,
                });
            }
            _ => {}
        }
    }
}

/// Decodes the content of a JSON string.
#[derive(Debug, Clone, Default)]
struct Decoder {
    escape: Escape,
    /// The first half of a surrogate pair.
    high: Option<u16>,
}

#[derive(Debug, Clone, Copy, Default)]
enum Escape {
    #[default]
    None,
    Begun,
    Unicode {
        digits: u8,
        unit: u16,
    },
}

impl Decoder {
    /// Returns true if the string ends here.
    fn read(&mut self, character: char, out: &mut String) -> bool {
        match std::mem::take(&mut self.escape) {
            Escape::None => match character {
                '"' => {
                    self.push(None, out);
                    return true;
                }
                '\\' => self.escape = Escape::Begun,
                plain => self.push(Some(plain), out),
            },
            Escape::Begun => match character {
                'u' => self.escape = Escape::Unicode { digits: 0, unit: 0 },
                'n' => self.push(Some('\n'), out),
                't' => self.push(Some('\t'), out),
                'r' => self.push(Some('\r'), out),
                'b' => self.push(Some('\u{8}'), out),
                'f' => self.push(Some('\u{c}'), out),
                itself => self.push(Some(itself), out),
            },
            Escape::Unicode { digits, unit } => {
                match character.to_digit(16).and_then(|digit| u16::try_from(digit).ok()) {
                    Some(digit) if digits == 3 => self.unit(unit << 4 | digit, out),
                    Some(digit) => self.escape = Escape::Unicode { digits: digits + 1, unit: unit << 4 | digit },
                    None => {
                        self.push(Some(char::REPLACEMENT_CHARACTER), out);
                        return self.read(character, out);
                    }
                }
            }
        }
        false
    }

    fn unit(&mut self, unit: u16, out: &mut String) {
        if (0xd800..=0xdbff).contains(&unit) {
            self.push(None, out);
            self.high = Some(unit);
            return;
        }
        let units = self.high.take().into_iter().chain([unit]);
        out.extend(char::decode_utf16(units).map(|read| read.unwrap_or(char::REPLACEMENT_CHARACTER)));
    }

    /// Appends a character. Half of a surrogate pair before it becomes U+FFFD.
    fn push(&mut self, character: Option<char>, out: &mut String) {
        if self.high.take().is_some() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
        out.extend(character);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::base::testing::kept;

    /// The text that the pieces give, which come one after the other.
    fn grown(path: &[&str], pieces: &[&str]) -> String {
        let (mut growing, mut offset, mut whole) = (Growing::at(path), 0, String::new());
        for piece in pieces {
            let (at, text) = growing.push(offset, piece);
            assert_eq!(at, whole.chars().count() as u64, "{pieces:?}");
            whole.push_str(&text);
            offset += piece.chars().count() as u64;
        }
        whole
    }

    #[test]
    fn text_is_found_at_its_path_among_other_members() {
        for (answer, expected) in [
            (r#"{"text":"Hola.","from":"en"}"#, "Hola."),
            (r#"{"from":"en","to":"es","text":"Hola."}"#, "Hola."),
            (r#"{ "text" : "a\"b\\c\/d\n\u00e9\ud83d\ude00" }"#, "a\"b\\c/d\né😀"),
            (r#"{"notes":{"text":"no","x":[1,{"text":"no"}]},"text":"yes"}"#, "yes"),
            (r#"{"t\u0065xt":"yes"}"#, "yes"),
            (r#"{"x":"\"text\":","y":["text","no"],"text":"yes","text":"twice"}"#, "yes"),
            ("Sure, \"here\" it is:\n```json\n{\"text\": \"yes\"}\n```", "yes"),
            (r#"{"text":null,"from":"text"}"#, ""),
            (r#"{"text":["no"]}"#, ""),
            (r#"["text","no"]"#, ""),
            (r#"{"text":"half"#, "half"),
            (r#"{"text":"\ud83dx\u12zz"}"#, "\u{fffd}x\u{fffd}zz"),
            ("}}]],,::{\"text\":\"yes\"}", "yes"),
            ("", ""),
        ] {
            assert_eq!(grown(&["text"], &[answer]), expected, "{answer}");
        }
    }

    #[test]
    fn path_of_several_members_leads_into_objects() {
        let answer = r#"{"text":"no","b":{"text":"no"},"a":{"x":{"text":"no"},"text":"yes"},"c":1}"#;
        assert_eq!(grown(&["a", "text"], &[answer]), "yes");
        assert_eq!(grown(&["a", "text"], &[r#"{"a":null,"b":{"text":"no"}}"#]), "");
        assert_eq!(grown(&["b", "text"], &[r#"{"a":{"z":1},"b":{"text":"yes"}}"#]), "yes");
    }

    #[test]
    fn new_attempt_starts_the_text_again() {
        let mut growing = Growing::at(&["text"]);
        assert_eq!(growing.push(0, r#"{"text":"Ho"#), (0, "Ho".to_owned()));
        assert_eq!(growing.push(11, "la"), (2, "la".to_owned()));
        assert_eq!(growing.push(0, r#"{"te"#), (0, String::new()));
        assert_eq!(growing.push(4, r#"xt":"Hi"}"#), (0, "Hi".to_owned()));
    }

    proptest! {
        #![proptest_config(kept())]

        #[test]
        fn pieces_of_any_size_give_the_same_text(
            text in "\\PC*|[\"\\\\\n\u{1F600}a]{0,30}",
            other in "\\PC{0,20}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let answer = json!({"from": other, "text": text, "to": other}).to_string();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| answer.floor_char_boundary(cut.index(answer.len()))).collect();
            cuts.extend([0, answer.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|cut| &answer[cut[0]..cut[1]]).filter(|piece| !piece.is_empty()).collect();
            prop_assert_eq!(grown(&["text"], &pieces), text);
        }
    }
}
