//! Determines the format of an answer's body by its first bytes: an event stream or one document. Vendors and the
//! proxies in front of them send a wrong media type, or none, so the bytes decide. The media type counts only if the
//! bytes are not clear.
//!
//! Does not read any further.

/// Names of the fields of an event stream.
const FIELDS: [&str; 4] = ["data", "event", "id", "retry"];
/// UTF-8's byte order mark.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Server-sent events.
    Events,
    Document,
}

/// Number of bytes before the content: white space and byte order marks.
pub fn blank(head: &[u8]) -> usize {
    let mut rest = head;
    loop {
        let before = rest.len();
        rest = rest.trim_ascii_start();
        rest = rest.strip_prefix(MARK).unwrap_or(rest);
        if rest.len() == before {
            return head.len() - rest.len();
        }
    }
}

/// The format of a body that begins with `head`, after its [`blank`] bytes; `None` if more bytes are needed. `events`:
/// the media type is that of an event stream.
pub fn of(head: &[u8], events: bool) -> Option<Form> {
    let named = if events { Form::Events } else { Form::Document };
    match head.first()? {
        b'{' | b'[' | b'<' | b'"' => Some(Form::Document),
        // A comment line of an event stream.
        b':' => Some(Form::Events),
        _ if MARK.starts_with(head) => None,
        _ => {
            let name = head.iter().position(|byte| !byte.is_ascii_lowercase()).unwrap_or(head.len());
            let (name, next) = (&head[..name], head.get(name));
            let field = FIELDS.iter().any(|field| field.as_bytes() == name);
            match next {
                None if FIELDS.iter().any(|field| field.as_bytes().starts_with(name)) => None,
                Some(b':') if field => Some(Form::Events),
                _ => Some(named),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_is_told_by_the_first_bytes_whatever_the_media_type() {
        for (head, form) in [
            ("data: {}\n\n", Form::Events),
            ("data:", Form::Events),
            ("event: message_start\n", Form::Events),
            ("id: 1\ndata: x", Form::Events),
            ("retry: 10\n", Form::Events),
            (": keep-alive\n\n", Form::Events),
            (":", Form::Events),
            ("{\"id\"", Form::Document),
            ("[{", Form::Document),
            ("<html>", Form::Document),
            ("\"text\"", Form::Document),
        ] {
            for events in [true, false] {
                for before in ["", "\n", " \r\n\t", "\u{feff}", "\u{feff}\n\n"] {
                    let body = format!("{before}{head}");
                    let blank = blank(body.as_bytes());
                    assert_eq!(blank, before.len(), "{body:?}");
                    assert_eq!(of(&body.as_bytes()[blank..], events), Some(form), "{body:?} {events}");
                }
            }
        }
    }

    #[test]
    fn media_type_decides_if_the_first_bytes_are_ambiguous() {
        for head in ["error: no", "Internal Server Error", "idle", "date", "data {", "events", "null", "5", "\u{fc}"] {
            assert_eq!(of(head.as_bytes(), true), Some(Form::Events), "{head}");
            assert_eq!(of(head.as_bytes(), false), Some(Form::Document), "{head}");
        }
    }

    #[test]
    fn detection_waits_for_bytes_only_while_it_is_ambiguous() {
        for head in ["", "d", "dat", "data", "e", "event", "i", "id", "r", "retry", "\u{feff}"] {
            let all = head.as_bytes();
            for cut in 0..=all.len() {
                let head = &all[..cut];
                let head = if cut == all.len() && head == MARK { &head[3..] } else { head };
                assert_eq!(of(head, false), None, "{head:?}");
            }
        }
    }
}
