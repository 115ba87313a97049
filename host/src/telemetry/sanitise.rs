//! Making what a guest writes safe to store and to show in a terminal.

/// Longest line that is kept, in bytes; the rest is cut and [`CUT`] put there.
pub const LINE_BYTES_MAX: usize = 8 << 10;
/// What stands where a line was cut.
pub const CUT: &str = "…";

/// A line as it is stored: valid UTF-8 (what is not becomes U+FFFD), at most
/// [`LINE_BYTES_MAX`] long, and without characters that a terminal obeys, which
/// are written as Rust writes them: `\u{1b}`. Tabs stay: they are indentation in
/// stack traces and harmless. A carriage return at the end is dropped: it is
/// the other half of the line's end.
///
/// Cleaning twice changes nothing more.
#[must_use]
pub fn sanitise(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // A guest may write a line of megabytes: what is cut is not worth reading.
    let head = line.get(..LINE_BYTES_MAX + 1).unwrap_or(line);
    let text = String::from_utf8_lossy(head);
    if head.len() == line.len() && text.len() <= LINE_BYTES_MAX && !text.contains(is_obeyed) {
        return text.into_owned();
    }
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if is_obeyed(character) {
            clean.extend(character.escape_unicode());
        } else {
            clean.push(character);
        }
        if clean.len() > LINE_BYTES_MAX {
            break;
        }
    }
    if clean.len() > LINE_BYTES_MAX || head.len() < line.len() {
        clean.truncate(clean.floor_char_boundary(LINE_BYTES_MAX - CUT.len()));
        clean.push_str(CUT);
    }
    clean
}

/// Control characters, and those that end lines or reorder the text around them
/// in ways that a reader can not see.
fn is_obeyed(character: char) -> bool {
    (character.is_control() && character != '\t')
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_made_safe() {
        for (line, expected) in [
            (b"plain, \xc3\xbc and \xf0\x9f\xa6\x80".as_slice(), "plain, ü and 🦀"),
            (b"\tat main.go:12\r", "\tat main.go:12"),
            (b"\x1b[31mred\x1b[0m", "\\u{1b}[31mred\\u{1b}[0m"),
            (b"a\0b\rc\nd\x7f\xc2\x9b", "a\\u{0}b\\u{d}c\\u{a}d\\u{7f}\\u{9b}"),
            (b"\xff\xfeok", "\u{fffd}\u{fffd}ok"),
            ("x\u{202e}y\u{2028}".as_bytes(), "x\\u{202e}y\\u{2028}"),
            (b"C:\\u{1b}", "C:\\u{1b}"),
            (b"", ""),
        ] {
            let clean = sanitise(line);
            assert_eq!(clean, expected);
            assert_eq!(sanitise(clean.as_bytes()), clean, "twice is once");
        }
    }

    #[test]
    fn long_lines_are_cut_to_the_bound() {
        let exact = "x".repeat(LINE_BYTES_MAX);
        assert_eq!(sanitise(exact.as_bytes()), exact);
        for long in [
            "x".repeat(LINE_BYTES_MAX + 1),
            "x".repeat(3 << 20),
            "ü".repeat(LINE_BYTES_MAX),
            format!("x{}", "ü".repeat(LINE_BYTES_MAX)),
            "\x1b".repeat(LINE_BYTES_MAX),
            "\x1b".repeat(LINE_BYTES_MAX / 4),
        ] {
            let clean = sanitise(long.as_bytes());
            assert!(clean.len() <= LINE_BYTES_MAX && clean.len() > LINE_BYTES_MAX - 8);
            assert!(clean.ends_with(CUT));
            assert_eq!(sanitise(clean.as_bytes()), clean);
        }
    }
}
