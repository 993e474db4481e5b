//! Text to a tree: the JSON of RFC 8259, and Python's `NaN`, `Infinity` and `-Infinity`.

use std::borrow::Cow;

use super::{Json, JsonError};

/// Deepest nesting: reading a tree takes stack.
const MAX_DEPTH: usize = 128;

/// Of a key that an object has several times with different values: Python takes the last, others take the first.
const REPEATED: &str = "several different values for one key";
const LONE_SURROGATE: &str = "text with half of a surrogate pair";

/// The error at the end of `before`.
pub(super) fn syntax(before: &str, expected: &str, found: impl Into<String>) -> JsonError {
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    JsonError::Syntax { line, column, expected: expected.to_owned(), found: found.into() }
}

/// The tree of a file's text.
///
/// # Errors
/// [`JsonError::Syntax`].
pub(super) fn parse(text: &str) -> Result<Json<'_>, JsonError> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    let value = parser.value()?;
    parser.blanks();
    if parser.at < text.len() { Err(parser.expected("the end of the file")) } else { Ok(value) }
}

struct Parser<'a> {
    text: &'a str,
    /// Always at the beginning of a character.
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.next() {
            self.at += 1;
        }
    }

    fn take(&mut self, token: &str) -> bool {
        let taken = self.rest().starts_with(token);
        if taken {
            self.at += token.len();
        }
        taken
    }

    /// The error at the next character.
    fn expected(&self, expected: &str) -> JsonError {
        let rest = self.rest();
        let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').take(20).collect();
        let found = match rest.chars().next() {
            None => "the end of the file".to_owned(),
            Some('/' | '#') => "a comment, which JSON does not have".to_owned(),
            Some(c) if word.is_empty() => format!("{c:?}"),
            Some(_) => format!("{word:?}"),
        };
        syntax(self.text.get(..self.at).unwrap_or_default(), expected, found)
    }

    fn value(&mut self) -> Result<Json<'a>, JsonError> {
        self.blanks();
        if self.depth == MAX_DEPTH {
            let found = "deeper nesting";
            return Err(syntax(self.text.get(..self.at).unwrap_or_default(), "at most 128 levels", found));
        }
        match self.next() {
            Some(b'{') => self.nested(Parser::object),
            Some(b'[') => self.nested(Parser::array),
            Some(b'"') => Ok(match self.string()? {
                (text, true) => Json::String(text),
                (_, false) => Json::Unreadable(LONE_SURROGATE),
            }),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                let words = [
                    ("null", Json::Null),
                    ("true", Json::Bool(true)),
                    ("false", Json::Bool(false)),
                    ("NaN", Json::Float(f64::NAN)),
                    ("Infinity", Json::Float(f64::INFINITY)),
                ];
                let begun = self.at;
                for (word, value) in words {
                    if self.take(word) {
                        let ends = !self.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
                        if ends {
                            return Ok(value);
                        }
                        self.at = begun;
                    }
                }
                Err(self.expected("a value"))
            }
        }
    }

    fn nested(
        &mut self,
        inside: impl FnOnce(&mut Parser<'a>) -> Result<Json<'a>, JsonError>,
    ) -> Result<Json<'a>, JsonError> {
        self.depth += 1;
        self.at += 1;
        let value = inside(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn array(&mut self) -> Result<Json<'a>, JsonError> {
        let mut items = Vec::new();
        self.blanks();
        if self.take("]") {
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value()?);
            self.blanks();
            if self.take("]") {
                return Ok(Json::Array(items));
            }
            if !self.take(",") {
                return Err(self.expected("a comma or the end of the list"));
            }
        }
    }

    fn object(&mut self) -> Result<Json<'a>, JsonError> {
        let mut entries = Vec::new();
        self.blanks();
        if self.take("}") {
            return Ok(Json::Object(entries));
        }
        loop {
            self.blanks();
            if self.next() != Some(b'"') {
                return Err(self.expected("a key in double quotes"));
            }
            let (key, _) = self.string()?;
            self.blanks();
            if !self.take(":") {
                return Err(self.expected("a colon"));
            }
            entries.push((key, self.value()?));
            self.blanks();
            if self.take("}") {
                return Ok(Json::Object(without_repeats(entries)));
            }
            if !self.take(",") {
                return Err(self.expected("a comma or the end of the object"));
            }
        }
    }

    fn number(&mut self) -> Result<Json<'a>, JsonError> {
        let begun = self.at;
        if self.take("-Infinity") {
            return Ok(Json::Float(f64::NEG_INFINITY));
        }
        self.take("-");
        let digits = |parser: &mut Parser<'_>| {
            let from = parser.at;
            while parser.next().is_some_and(|b| b.is_ascii_digit()) {
                parser.at += 1;
            }
            parser.at - from
        };
        let zero = self.next() == Some(b'0');
        let count = digits(self);
        let mut whole = true;
        let good = count > 0 && !(zero && count > 1);
        if !good {
            self.at = if count > 0 { begun } else { self.at };
            return Err(self.expected("a number"));
        }
        if self.take(".") {
            whole = false;
            if digits(self) == 0 {
                return Err(self.expected("a digit"));
            }
        }
        if self.take("e") || self.take("E") {
            whole = false;
            let _sign = self.take("+") || self.take("-");
            if digits(self) == 0 {
                return Err(self.expected("a digit"));
            }
        }
        let text = self.text.get(begun..self.at).unwrap_or_default();
        if let (true, Ok(value)) = (whole, text.parse()) {
            return Ok(Json::Integer(value));
        }
        // As in Python, a number beyond a double's range is infinite.
        text.parse().map(Json::Float).map_err(|_| self.expected("a number"))
    }

    /// A string, and whether all of it could be read.
    fn string(&mut self) -> Result<(Cow<'a, str>, bool), JsonError> {
        self.at += 1;
        let plain = |text: &str| text.bytes().position(|b| b == b'"' || b == b'\\' || b < 0x20);
        let (mut text, mut readable) = (Cow::Borrowed(""), true);
        loop {
            let rest = self.rest();
            let Some(length) = plain(rest) else {
                self.at = self.text.len();
                return Err(self.expected("the end of the string"));
            };
            let part = rest.get(..length).unwrap_or_default();
            if text.is_empty() {
                text = Cow::Borrowed(part)
            } else {
                text.to_mut().push_str(part)
            }
            self.at += length;
            match self.next() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok((text, readable));
                }
                Some(b'\\') => match self.escape()? {
                    Some(c) => text.to_mut().push(c),
                    None => {
                        readable = false;
                        text.to_mut().push(char::REPLACEMENT_CHARACTER);
                    }
                },
                _ => return Err(self.expected("a string without control characters")),
            }
        }
    }

    /// The character of an escape; none for half of a surrogate pair.
    fn escape(&mut self) -> Result<Option<char>, JsonError> {
        self.at += 1;
        let plain = match self.next() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.expected("an escape such as \\n or \\u0020")),
        };
        self.at += 1;
        Ok(Some(plain))
    }

    fn unicode(&mut self) -> Result<Option<char>, JsonError> {
        let first = self.hex()?;
        if !(0xD800..0xDC00).contains(&first) {
            return Ok(char::from_u32(first));
        }
        let after = self.at;
        if self.take("\\") && self.next() == Some(b'u') {
            let second = self.hex()?;
            if (0xDC00..0xE000).contains(&second) {
                return Ok(char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)));
            }
        }
        self.at = after;
        Ok(None)
    }

    /// Four digits after a `u`.
    fn hex(&mut self) -> Result<u32, JsonError> {
        self.at += 1;
        let digits = self.rest().get(..4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let value = digits.and_then(|d| u32::from_str_radix(d, 16).ok());
        let value = value.ok_or_else(|| self.expected("four hexadecimal digits"))?;
        self.at += 4;
        Ok(value)
    }
}

/// Each key once, where it is first: with its value, or, if two differ, with one that cannot be read.
fn without_repeats<'a>(mut entries: Vec<(Cow<'a, str>, Json<'a>)>) -> Vec<(Cow<'a, str>, Json<'a>)> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    let key = |i: &usize| entries.get(*i).map(|(key, _)| key.clone());
    order.sort_by_cached_key(key);
    let mut repeated = Vec::new();
    let mut first = order.first().copied().unwrap_or_default();
    for next in order.into_iter().skip(1) {
        let pair = entries.get(first).zip(entries.get(next));
        match pair.filter(|((a, _), (b, _))| a == b) {
            Some(((_, a), (_, b))) => repeated.push((first, next, a == b)),
            None => first = next,
        }
    }
    for (first, _, equal) in &repeated {
        if let (false, Some((_, value))) = (equal, entries.get_mut(*first)) {
            *value = Json::Unreadable(REPEATED);
        }
    }
    if !repeated.is_empty() {
        let mut at = 0..;
        entries.retain(|_| at.next().is_none_or(|at| repeated.iter().all(|(_, next, _)| *next != at)));
    }
    entries
}
