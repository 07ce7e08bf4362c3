//! Sizes in bytes, as people write and read them.

/// The binary units, the largest first: the word, and the number of bytes as a power of two.
const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// A size for people, in its largest binary unit: `1.5 KiB`, `24 MiB`, `8.1 GiB`. Below ten of the unit it has a tenth.
/// What is less is cut off, so that no size seems to be larger than it is.
pub fn size(bytes: u64) -> String {
    let Some((unit, power)) = UNITS.into_iter().find(|(_, power)| bytes >> power > 0) else {
        return format!("{bytes} B");
    };
    let tenths = (u128::from(bytes) * 10) >> power;
    match (tenths / 10, tenths % 10) {
        (whole @ 0..10, tenth) => format!("{whole}.{tenth} {unit}"),
        (whole, _) => format!("{whole} {unit}"),
    }
}

/// The text is no size.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no size; write bytes, or a number with Ki, Mi, Gi or Ti, such as 8Gi")]
pub struct NoSize(String);

/// A size as Kubernetes writes it, in bytes.
///
/// # Errors
/// [`NoSize`], also if it is zero.
pub fn parse(text: &str) -> Result<u64, NoSize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        "Ti" => 40,
        _ => return Err(NoSize(text.to_owned())),
    };
    let number: Option<u64> = number.parse().ok().filter(|number| *number > 0);
    let size = number.and_then(|number| number.checked_mul(1 << shift));
    size.ok_or_else(|| NoSize(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_its_largest_unit_and_a_tenth_below_ten() {
        for (bytes, text) in [
            (0, "0 B"),
            (1, "1 B"),
            (1023, "1023 B"),
            (1 << 10, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (700_000, "683 KiB"),
            ((1 << 20) - 1, "1023 KiB"),
            (1 << 20, "1.0 MiB"),
            (24 << 20, "24 MiB"),
            (1023 << 20, "1023 MiB"),
            (2 << 30, "2.0 GiB"),
            (8_700_000_000, "8.1 GiB"),
            ((10 << 30) - 1, "9.9 GiB"),
            (3 << 40, "3.0 TiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn a_size_is_read_as_kubernetes_writes_it() {
        assert_eq!(parse("8589934592").unwrap(), 8 << 30);
        assert_eq!(parse("1Ki").unwrap(), 1 << 10);
        assert_eq!(parse("512Mi").unwrap(), 512 << 20);
        assert_eq!(parse("8Gi").unwrap(), 8 << 30);
        for wrong in ["", "Gi", "0", "-1", "8G", "8 Gi", "1.5Gi", "99999999Ti"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
