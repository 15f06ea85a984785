//! Text that another process wrote, made plain: the one writer that escapes it for a terminal.
//!
//! A switch may have been taken over, and what it answers ends on an operator's terminal, in a log
//! or in JSON. Control characters there are commands of the terminal, and some format characters
//! reverse or hide the text beside them. All of them are written as `\u{…}`.

use std::fmt::{self, Display, Write as _};
use std::io;

use serde::Serialize;

/// The most characters that a message quotes of another process's text.
pub const QUOTE_MAX: usize = 512;

/// Format characters (Unicode's Cf and the two separators): they change how other text is shown, or
/// are not seen.
const FORMAT: &[(char, char)] = &[
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e007f}'),
];

/// Whether a terminal shows the character, and does nothing else.
fn is_plain(character: char) -> bool {
    let is_format = || {
        FORMAT
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&character))
    };
    // All others are beyond ASCII.
    !character.is_control() && (character.is_ascii() || !is_format())
}

/// Writes what is not plain as `\u{…}`, and a line's end as `\n`.
#[derive(Debug, Clone, Copy)]
pub struct Plain<T>(pub T);

impl<T: AsRef<str>> Display for Plain<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.as_ref().chars() {
            escape(character, out)?;
        }
        Ok(())
    }
}

fn escape(character: char, out: &mut impl fmt::Write) -> fmt::Result {
    if is_plain(character) {
        return out.write_char(character);
    }
    character
        .escape_default()
        .try_for_each(|part| out.write_char(part))
}

/// At most [`QUOTE_MAX`] characters of a text, plain and on one line: for a message.
pub fn quote(text: &str) -> String {
    cut(text.trim(), QUOTE_MAX)
}

/// At most `most` characters of a text, plain; a longer one ends with `…`.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => Plain(text).to_string(),
        Some((end, _)) => format!("{}…", Plain(&text[..end])),
    }
}

/// JSON on one line. What is not plain is escaped as JSON does it, so the values stay the same.
///
/// # Errors
/// If the value cannot be written as JSON: a map whose keys are no strings.
pub fn json(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(plain_json(&serde_json::to_string(value)?))
}

/// The same on several lines.
///
/// # Errors
/// As [`json`].
pub fn json_pretty(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(plain_json(&serde_json::to_string_pretty(value)?))
}

/// Outside its strings JSON is plain but for the ends of lines, which strings do not have.
fn plain_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\n' || is_plain(character) {
            out.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string always succeeds.
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

/// An output that a terminal may show: what is not plain is escaped, but for the ends of lines and
/// tabs. Whoever writes to it needs no other care.
#[derive(Debug)]
pub struct PlainWriter<W>(pub W);

impl<W: io::Write> io::Write for PlainWriter<W> {
    /// Writes all of it, so a character is never divided.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let mut out = String::with_capacity(text.len());
        for character in text.chars() {
            let kept = matches!(character, '\n' | '\t');
            let written = match kept {
                true => out.write_char(character),
                false => escape(character, &mut out),
            };
            written.map_err(io::Error::other)?;
        }
        self.0.write_all(out.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// Clears the screen by 7 and by 8 bits, rings, goes back, reverses and hides.
    const HOSTILE: &str = "a\u{1b}[2J\u{9b}2J\u{7}\r\u{8}\u{7f}\u{202e}\u{200b}\u{feff}b";
    const ESCAPED: &str = "a\\u{1b}[2J\\u{9b}2J\\u{7}\\r\\u{8}\\u{7f}\\u{202e}\\u{200b}\\u{feff}b";

    #[test]
    fn terminal_commands_are_escaped() {
        assert_eq!(Plain(HOSTILE).to_string(), ESCAPED);
        assert_eq!(Plain("µ → \\ \" 日本 é").to_string(), "µ → \\ \" 日本 é");
        let mut out = PlainWriter(Vec::new());
        write!(out, "{HOSTILE}\n\tc").expect("it is written");
        assert_eq!(out.0, format!("{ESCAPED}\n\tc").as_bytes());
    }

    #[test]
    fn quotation_is_short_and_on_one_line() {
        assert_eq!(quote(" a\nb \n"), "a\\nb");
        let long = "\u{1b}".repeat(QUOTE_MAX + 1);
        let quoted = quote(&long);
        assert_eq!(quoted, format!("{}…", "\\u{1b}".repeat(QUOTE_MAX)));
    }

    #[test]
    fn json_is_plain_and_has_the_same_values() {
        let value = serde_json::json!({ HOSTILE: [HOSTILE, "\u{e0041}"] });
        for text in [json(&value), json_pretty(&value)] {
            let text = text.expect("JSON");
            assert!(text.chars().all(|it| it == '\n' || is_plain(it)), "{text}");
            let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(read, value);
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_not_plain_is_written(text in any::<String>()) {
            prop_assert!(Plain(&text).to_string().chars().all(is_plain));
            prop_assert!(cut(&text, 7).chars().all(is_plain));
        }
    }
}
