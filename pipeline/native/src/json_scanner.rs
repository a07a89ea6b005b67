//! Reading JSON from left to right: only the plain forms, and None for everything else.
//!
//! None is never an error: the value is then read in Python, which also finds out what is wrong.

/// A position in the bytes of one JSON text.
pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Start at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Return the next byte, without moving.
    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Move past white space.
    #[inline]
    pub fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Move past `expected`, if it is next; return whether it was.
    #[inline]
    pub fn skip(&mut self, expected: &[u8]) -> bool {
        let is_next = self.bytes[self.at..].starts_with(expected);
        if is_next {
            self.at += expected.len();
        }
        is_next
    }

    /// Move past one byte with white space around it.
    #[inline]
    pub fn punctuation(&mut self, expected: u8) -> Option<()> {
        self.skip_space();
        if self.peek()? != expected {
            return None;
        }
        self.at += 1;
        self.skip_space();
        Some(())
    }

    /// Succeed if only white space is left.
    pub fn end(&mut self) -> Option<()> {
        self.skip_space();
        self.peek().is_none().then_some(())
    }

    /// Read a string without escapes; return its bytes, which need not be UTF-8.
    #[inline]
    pub fn string(&mut self) -> Option<&'a [u8]> {
        if self.peek()? != b'"' {
            return None;
        }
        let start = self.at + 1;
        let rest = self.bytes.get(start..)?;
        let length = rest
            .iter()
            .position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20)?;
        if rest[length] != b'"' {
            return None;
        }
        self.at = start + length + 1;
        Some(&rest[..length])
    }

    /// Read `true` or `false`.
    pub fn boolean(&mut self) -> Option<bool> {
        if self.skip(b"true") {
            Some(true)
        } else {
            self.skip(b"false").then_some(false)
        }
    }

    /// Read a number that float32 can hold: correctly rounded to float64 first, then to float32, as
    /// numpy does.
    #[inline]
    pub fn number(&mut self) -> Option<f32> {
        let rest = &self.bytes[self.at..];
        let whole = whole_digits(rest)?;
        if rest.get(whole) == Some(&b'.') && !rest.get(whole + 1)?.is_ascii_digit() {
            return None;
        }
        let (value, length) = fast_float2::parse_partial::<f64, _>(rest).ok()?;
        self.at += length;
        let value = value as f32;
        if !value.is_finite() {
            return None;
        }
        // Without a fraction, -0 is an integer, and integers have no negative zero.
        let is_minus_zero_integer = length == 2 && rest.starts_with(b"-0");
        Some(if is_minus_zero_integer { 0.0 } else { value })
    }

    /// Read an integer of at most 18 digits, which is neither a float nor -0; return its bytes.
    pub fn integer(&mut self) -> Option<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let length = whole_digits(rest)?;
        let is_float = matches!(rest.get(length), Some(b'.' | b'e' | b'E'));
        let token = &rest[..length];
        let digits = token.strip_prefix(b"-").unwrap_or(token);
        if is_float || digits.len() > 18 || token == b"-0" {
            return None;
        }
        self.at += length;
        Some(token)
    }
}

/// Return the length of the sign and the digits before the point, as JSON allows them.
#[inline]
fn whole_digits(text: &[u8]) -> Option<usize> {
    let start = usize::from(text.first()? == &b'-');
    let count = text[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let has_leading_zero = count > 1 && text[start] == b'0';
    (count > 0 && !has_leading_zero).then_some(start + count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Option<(f32, usize)> {
        let mut scanner = Scanner::new(text.as_bytes());
        scanner.number().map(|value| (value, scanner.at))
    }

    #[test]
    fn numbers_of_json_are_read_with_the_bits_of_float64_rounded_to_float32() {
        for text in [
            "0", "1", "-1.5", "1e3", "1E+3", "1e-3", "0.1", "16777217", "-0.0", "0e9",
        ] {
            let expected = text.parse::<f64>().unwrap() as f32;
            let (value, length) = number(text).unwrap();
            assert_eq!(value.to_bits(), expected.to_bits(), "{text}");
            assert_eq!(length, text.len(), "{text}");
        }
        // Halfway between two float32 after rounding to float64, not before.
        let text = "1.00000005960464477540";
        assert_eq!(number(text).unwrap().0, text.parse::<f64>().unwrap() as f32);
    }

    #[test]
    fn an_integer_has_no_negative_zero() {
        assert_eq!(number("-0").unwrap().0.to_bits(), 0.0_f32.to_bits());
        assert_eq!(number("-0,").unwrap().0.to_bits(), 0.0_f32.to_bits());
        assert_eq!(number("-0e0").unwrap().0.to_bits(), (-0.0_f32).to_bits());
    }

    #[test]
    fn what_json_does_not_allow_is_declined() {
        for text in [
            "", "-", "+1", ".5", "-.5", "1.", "1.e5", "01", "-01", "00", "nan", "-nan", "inf",
            "-inf", "Infinity", "1e999", "1e39", "\"1\"", "-1e39",
        ] {
            assert_eq!(number(text), None, "{text}");
        }
        // The rest of these is left, where no separator is found.
        assert_eq!(number("1e").unwrap().1, 1);
        assert_eq!(number("1e+").unwrap().1, 1);
        assert_eq!(number("1.5.5").unwrap().1, 3);
    }

    #[test]
    fn an_integer_ends_where_its_digits_end() {
        let integer = |text: &'static str| Scanner::new(text.as_bytes()).integer();
        assert_eq!(integer("-12,"), Some(&b"-12"[..]));
        assert_eq!(integer("0"), Some(&b"0"[..]));
        for text in [
            "-0",
            "1.0",
            "1e2",
            "1E2",
            "007",
            "-",
            "",
            "x",
            "1234567890123456789",
        ] {
            assert_eq!(integer(text), None, "{text}");
        }
    }

    #[test]
    fn a_string_has_neither_escapes_nor_control_characters() {
        let string = |text: &'static [u8]| Scanner::new(text).string();
        assert_eq!(string(b"\"ab\"c"), Some(&b"ab"[..]));
        assert_eq!(string(b"\"\""), Some(&b""[..]));
        assert_eq!(string(b"\"\xff\""), Some(&b"\xff"[..]));
        for text in [
            &b"\"ab"[..],
            b"\"a\\n\"",
            b"\"a\nb\"",
            b"\"a\0\"",
            b"ab",
            b"",
            b"\"",
        ] {
            assert_eq!(string(text), None, "{text:?}");
        }
    }
}
