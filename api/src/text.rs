//! Text that others wrote, made fit to be printed.

use std::{borrow::Cow, error::Error};

/// Letters that are drawn as nothing, though Unicode counts them as printable.
const INVISIBLE: [std::ops::RangeInclusive<char>; 7] = [
    '\u{34f}'..='\u{34f}',
    '\u{115f}'..='\u{1160}',
    '\u{180b}'..='\u{180f}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{e0000}'..='\u{e0fff}',
];

/// The text on one line, with all that a reader would not see as it is written out as an escape such as
/// `\n`, `\u{1b}` or `\u{202e}`: control characters, line and paragraph separators, bidirectional controls,
/// invisible letters, and what Unicode has no character for. Blanks of any width become a space.
///
/// Whatever a user wrote goes through this where it is read, so that it can neither fake a line of a log, nor
/// move the cursor of a terminal, nor turn around what stands beside it.
pub fn plain(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| matches!(c, ' '..='~');
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 8);
    let mut buffer = String::with_capacity(5);
    for c in text.chars() {
        match c {
            _ if is_plain(c) => plain.push(c),
            _ if INVISIBLE.iter().any(|range| range.contains(&c)) => {
                plain.extend(c.escape_unicode())
            }
            '\u{2028}' | '\u{2029}' => plain.extend(c.escape_unicode()),
            _ if c.is_whitespace() && !c.is_control() => plain.push(' '),
            _ => {
                // Behind a letter a combining mark is part of it, and printable.
                buffer.clear();
                buffer.extend(['a', c]);
                plain.extend(buffer.escape_debug().skip(1));
            }
        }
    }
    Cow::Owned(plain)
}

/// At most `max` characters of the text, made plain; what is cut off is replaced by `…`.
pub fn plain_cut(text: &str, max: usize) -> String {
    // A user may have written megabytes.
    let plain = plain(match text.char_indices().nth(max.saturating_add(1)) {
        Some((end, _)) => &text[..end],
        None => text,
    });
    if plain.chars().nth(max).is_none() {
        return plain.into_owned();
    }
    plain.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

/// The text of an error with all its causes. A cause that the error above has already named is left out.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        source = error.source();
    }
    text
}

/// The same, made plain.
pub fn plain_error_chain(error: &dyn Error) -> String {
    plain(&error_chain(error)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write_stays_as_it_is() {
        for text in
            ["", "disk 91 %", "Größe: 3 µm", "磁盘已满", "cafe\u{301}", r#"a "b" \ 'c'"#, "✓ 👍"]
        {
            assert_eq!(plain(text), text);
        }
    }

    #[test]
    fn what_fakes_or_hides_something_is_written_out() {
        for (text, written) in [
            ("ok\n2026-01-01 ERROR no", "ok\\n2026-01-01 ERROR no"),
            ("a\r\tb\0", "a\\r\\tb\\0"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("a\u{85}b\u{9b}0m", "a\\u{85}b\\u{9b}0m"),
            ("a\u{2028}b\u{2029}", "a\\u{2028}b\\u{2029}"),
            ("\u{202e}gnp.exe\u{2066}", "\\u{202e}gnp.exe\\u{2066}"),
            ("a\u{200b}\u{feff}\u{ad}b", "a\\u{200b}\\u{feff}\\u{ad}b"),
            ("\u{3164}\u{e0041}\u{e000}", "\\u{3164}\\u{e0041}\\u{e000}"),
            ("a\u{a0}b\u{3000}c", "a b c"),
        ] {
            assert_eq!(plain(text), written);
        }
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(plain_cut("éééé", 3), "éé…");
        assert_eq!(plain_cut("ééé", 3), "ééé");
        assert_eq!(plain_cut("\n\n", 3), "\\n…");
    }

    proptest! {
        #[test]
        fn nothing_that_is_printed_has_a_character_that_is_not_seen(text in any::<String>()) {
            let plain = plain(&text);
            let hidden = |c: char| {
                c.is_control()
                    || matches!(
                        c,
                        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                            | '\u{e0000}'..='\u{e0fff}'
                    )
            };
            prop_assert!(!plain.chars().any(hidden), "{plain:?}");
            prop_assert_eq!(super::plain(&plain).into_owned(), plain.clone().into_owned(), "once is enough");
        }
    }
}
