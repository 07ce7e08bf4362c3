//! Figures: quantiles, summaries of several runs, and numbers as text.

/// Returns the smallest value that at least this share of all values does not exceed (nearest rank). It is always a
/// measured value. Returns `None` if there are no values.
pub fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied()
}

/// Returns the median. That of an even number of values is the mean of the middle two.
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = |place: usize| values.get(place).copied();
    Some(f64::midpoint(middle(values.len().checked_sub(1)? / 2)?, middle(values.len() / 2)?))
}

/// Returns the median of several runs as text, with the minimum and maximum if they differ as text.
pub fn spread(values: &mut [f64], unit: &str) -> String {
    let Some(median) = median(values) else { return String::new() };
    let [least, most] = [values[0], values[values.len() - 1]].map(|value| told(value, unit));
    let median = told(median, unit);
    if least == most { median } else { format!("{median} ({least}–{most})") }
}

/// Returns a value as text: seconds for `s`, bytes as megabytes for `MB`, a share for `%`, otherwise a plain number.
pub fn told(value: f64, unit: &str) -> String {
    match unit {
        "s" => seconds(value),
        "MB" => format!("{} MB", number(value / 1e6)),
        "%" => format!("{} %", number(value * 100.0)),
        _ => number(value),
    }
}

/// Returns seconds with three digits, in the unit that is easiest to read.
pub fn seconds(seconds: f64) -> String {
    let (value, unit) = match seconds.abs() {
        size if size >= 1.0 => (seconds, "s"),
        size if size >= 1e-3 => (seconds * 1e3, "ms"),
        size if size >= 1e-6 => (seconds * 1e6, "µs"),
        0.0 => (0.0, "s"),
        _ => (seconds * 1e9, "ns"),
    };
    format!("{} {unit}", number(value))
}

/// Returns a number with three digits, or with all digits before the point. A whole number has no point.
fn number(value: f64) -> String {
    match value.abs() {
        // The sum of an empty list is negative zero.
        size if size.fract() == 0.0 => format!("{:.0}", value + 0.0),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let at = |share| quantile(&mut [3.0, 1.0, 4.0, 2.0], share);
        assert_eq!((at(0.0), at(0.25), at(0.5)), (Some(1.0), Some(1.0), Some(2.0)));
        assert_eq!((at(0.51), at(0.99), at(1.0)), (Some(3.0), Some(4.0), Some(4.0)));
        let mut many: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((quantile(&mut many, 0.99), quantile(&mut [], 0.5)), (Some(198.0), None));
    }

    #[test]
    fn runs_are_summarized_by_their_median_and_the_extremes() {
        assert_eq!(spread(&mut [0.3, 0.1, 0.2], "s"), "200 ms (100 ms–300 ms)");
        assert_eq!(spread(&mut [0.1, 0.2, 0.4, 9.0], "s"), "300 ms (100 ms–9 s)");
        assert_eq!(
            (spread(&mut [1.5], "s"), spread(&mut [], "s")),
            ("1.50 s".to_owned(), String::new())
        );
    }

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        for (value, unit, text) in [
            (12.345, "s", "12.3 s"),
            (0.012_34, "s", "12.3 ms"),
            (-0.001_5, "s", "-1.50 ms"),
            (0.000_000_123, "s", "123 ns"),
            (0.000_045_12, "s", "45.1 µs"),
            (0.0, "s", "0 s"),
            (60e6, "MB", "60 MB"),
            (0.15, "%", "15 %"),
            (12_345.6, "", "12346"),
            (-0.0, "", "0"),
        ] {
            assert_eq!(told(value, unit), text);
        }
    }
}
