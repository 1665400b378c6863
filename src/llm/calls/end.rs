//! Where a JSON object that comes in pieces ends. Reads brackets and strings and nothing else.

/// How far an object has come.
#[derive(Debug, Default)]
pub(super) struct End {
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// Something other than an object began: its end is nobody's to tell.
    other: bool,
    reached: bool,
}

impl End {
    /// Whether all of the object has come.
    pub(super) fn reached(&self) -> bool {
        self.reached
    }

    /// Reads a piece; gives how many of its bytes belong to the object. All of them, where its end is not in it.
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
