//! Finds the end of a JSON object that arrives in pieces. Looks only at brackets and strings.

/// State of reading one object.
#[derive(Debug, Default)]
pub(super) struct End {
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// Set if the value is not an object, so that its end cannot be found.
    other: bool,
    reached: bool,
}

impl End {
    /// Returns true if the object is complete.
    pub(super) fn reached(&self) -> bool {
        self.reached
    }

    /// Reads a piece. Returns how many of its bytes belong to the object: all of them if the object does not end in
    /// this piece, none after its end.
    pub(super) fn read(&mut self, piece: &str) -> usize {
        if self.reached {
            return 0;
        }
        for (at, byte) in piece.bytes().enumerate() {
            if self.other {
                break;
            }
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' if self.in_string => self.in_string = false,
                _ if self.in_string => {}
                b'"' if self.depth > 0 => self.in_string = true,
                b'{' | b'[' if self.depth > 0 || byte == b'{' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.reached = true;
                        return at + 1;
                    }
                }
                byte if self.depth == 0 && !byte.is_ascii_whitespace() => self.other = true,
                _ => {}
            }
        }
        piece.len()
    }
}
