//! Splits a vendor's sentence into words, numbers, dates and signs. ISO 8601 durations become seconds.
//!
//! Does not know what any of them mean.

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'a> {
    /// A word, in lower case.
    Word(String),
    Number(f64),
    /// A date, as written.
    Date(&'a str),
    Sign(char),
    /// The end of a sentence.
    Stop,
}

/// Splits a text.
pub(super) fn cut(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let length = if first.is_ascii_digit() {
            if let Some(length) = date_length(rest) {
                tokens.push(Token::Date(&rest[..length]));
                length
            } else {
                let length = number_length(rest);
                let number = rest[..length].replace(',', "").parse();
                tokens.extend(number.ok().map(Token::Number));
                length
            }
        } else if matches!(first, 'P' | 'p')
            && tokens.last().is_none_or(|last| !matches!(last, Token::Number(_)))
            && let Some((seconds, length)) = iso(rest)
        {
            tokens.extend([Token::Number(seconds), Token::Word("s".to_owned())]);
            length
        } else if first.is_alphabetic() {
            let length = rest.find(|letter: char| !letter.is_alphabetic()).unwrap_or(rest.len());
            // `retryAfter` becomes two words.
            words(&rest[..length], &mut tokens);
            length
        } else {
            let length = first.len_utf8();
            let ends = rest[length..].chars().next().is_none_or(char::is_whitespace);
            match first {
                '.' | '!' | '?' | ';' if ends => tokens.push(Token::Stop),
                '\n' => tokens.push(Token::Stop),
                // White space, quotes and brackets are skipped, and so are the underscores in names (`retry_after`).
                _ if first.is_whitespace() || matches!(first, '_' | '"' | '\'' | '`' | '(' | ')' | '*') => {}
                _ => tokens.push(Token::Sign(first)),
            }
            length
        };
        at += length;
    }
    tokens
}

fn words(run: &str, tokens: &mut Vec<Token<'_>>) {
    let mut from = 0;
    let mut before = '\0';
    for (at, letter) in run.char_indices() {
        if letter.is_uppercase() && before.is_lowercase() {
            tokens.push(Token::Word(run[from..at].to_lowercase()));
            from = at;
        }
        before = letter;
    }
    tokens.push(Token::Word(run[from..].to_lowercase()));
}

/// Length of a number: digits, with commas between thousands and a fraction.
fn number_length(text: &str) -> usize {
    let digits = |from: usize| text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let mut length = digits(0);
    while text[length..].starts_with(',') && digits(length + 1) == 3 {
        length += 4;
    }
    if text[length..].starts_with('.') && digits(length + 1) > 0 {
        length += 1 + digits(length + 1);
    }
    length
}

/// Length of a date such as `2026-11-29T12:00:00.5+01:00` at the start of the text.
fn date_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let shape = |from: usize, form: &[u8]| {
        bytes.get(from..from + form.len()).is_some_and(|part| {
            part.iter().zip(form).all(|(byte, wanted)| match wanted {
                b'9' => byte.is_ascii_digit(),
                b'T' => matches!(byte, b'T' | b't' | b' '),
                other => byte == other,
            })
        })
    };
    if !shape(0, b"9999-99-99T99:99:99") {
        return None;
    }
    let mut length = 19;
    if bytes.get(length) == Some(&b'.') {
        length += 1 + bytes[length + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    }
    if matches!(bytes.get(length), Some(b'Z' | b'z')) {
        length += 1;
    } else if shape(length, b"+99:99") || shape(length, b"-99:99") {
        length += 6;
    }
    Some(length)
}

/// Seconds of an ISO 8601 duration at the start of the text, and its length in bytes.
fn iso(text: &str) -> Option<(f64, usize)> {
    let mut at = 1;
    let mut timed = false;
    let mut seconds = 0.0;
    let mut parts = 0;
    loop {
        let rest = &text[at..];
        match rest.chars().next() {
            Some('T' | 't') if !timed => {
                timed = true;
                at += 1;
            }
            Some(digit) if digit.is_ascii_digit() => {
                let length = number_length(rest);
                let number: f64 = rest[..length].parse().ok()?;
                let unit = match (rest[length..].chars().next()?.to_ascii_uppercase(), timed) {
                    ('W', false) => 604_800.0,
                    ('D', false) => 86_400.0,
                    ('H', true) => 3_600.0,
                    ('M', true) => 60.0,
                    ('S', true) => 1.0,
                    _ => return None,
                };
                seconds += number * unit;
                parts += 1;
                at += length + 1;
            }
            next => {
                let whole = parts > 0 && next.is_none_or(|next| !next.is_alphanumeric());
                return whole.then_some((seconds, at));
            }
        }
    }
}
