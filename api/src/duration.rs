//! Durations as the Gateway API writes them (GEP-2257): `1h30m`, `30s`, `1500ms`.

use std::time::Duration;

/// What CEL checks and [`parse`] accepts: one to four groups of a whole number and a unit.
pub const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a duration: write whole numbers with the units h, m, s or ms, as in 1h30m, 30s or 1500ms"
)]
pub struct ParseDurationError(String);

/// Reads a GEP-2257 duration. Units may come in any order and repeat, as GEP-2257 allows; decimals,
/// signs, spaces and other units are errors.
///
/// # Errors
/// [`ParseDurationError`], which quotes the text and says how to write it.
pub fn parse(text: &str) -> Result<Duration, ParseDurationError> {
    let error = || ParseDurationError(text.to_owned());
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut groups = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=5).contains(&digits) || groups == 4 {
            return Err(error());
        }
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| error())?;
        let unit_len = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(unit_len);
        total += match unit {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return Err(error()),
        };
        rest = tail;
        groups += 1;
    }
    if groups == 0 { Err(error()) } else { Ok(total) }
}

/// Writes a duration the way [`parse`] reads it, in the largest units that hold it: `90s` becomes
/// `1m30s`. Anything below a millisecond is cut off; zero is `0s`.
pub fn format(duration: Duration) -> String {
    let millis = duration.as_millis();
    let parts = [
        (millis / 3_600_000, "h"),
        (millis / 60_000 % 60, "m"),
        (millis / 1000 % 60, "s"),
        (millis % 1000, "ms"),
    ];
    let text: String = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_the_gateway_api_writes_them() {
        for (text, millis) in [
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("1500ms", 1_500),
            ("0s", 0),
            ("1s500ms", 1_500),
            ("24h", 86_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn decimals_signs_spaces_other_units_and_plain_numbers_are_refused() {
        for text in [
            "",
            "30",
            "1.5s",
            "-30s",
            "+30s",
            "30 s",
            " 30s",
            "1d",
            "30S",
            "s",
            "123456s",
            "1us",
            "1s1s1s1s1s",
            "1е3s",
            "٣s",
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains("as in 1h30m, 30s or 1500ms"), "{error}");
        }
    }

    #[test]
    fn a_written_duration_reads_back_as_itself() {
        for millis in [0, 1, 999, 1000, 90_000, 5_400_000, 86_399_999] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }
}
