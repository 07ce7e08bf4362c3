//! Quantiles, and the summary of several runs.

/// Returns the smallest value that at least this share of all values does not exceed (nearest rank). It is always a
/// measured value. Returns `None` if there are no values.
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// Sorts the values in ascending order.
pub fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The summary of one figure over several runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The minimum.
    pub least: f64,
    /// The maximum.
    pub most: f64,
}

impl Spread {
    /// Summarizes one figure per run; `None` if there are no runs. The median of an even number of runs is the mean
    /// of the middle two.
    pub fn of(runs: impl IntoIterator<Item = f64>) -> Option<Self> {
        let runs = sorted(runs);
        let (least, most) = (*runs.first()?, *runs.last()?);
        let median = f64::midpoint(runs[(runs.len() - 1) / 2], runs[runs.len() / 2]);
        Some(Self { median, least, most })
    }

    /// Returns the median as text, with the minimum and maximum if they differ as text.
    pub fn told(self, tell: impl Fn(f64) -> String) -> String {
        let [median, least, most] = [self.median, self.least, self.most].map(tell);
        if least == most { median } else { format!("{median} ({least}–{most})") }
    }
}

/// Returns seconds with three digits, in the unit that is easiest to read.
pub fn told_seconds(seconds: f64) -> String {
    let (value, unit) = match seconds.abs() {
        size if size >= 1.0 => (seconds, "s"),
        size if size >= 1e-3 => (seconds * 1e3, "ms"),
        size if size >= 1e-6 => (seconds * 1e6, "µs"),
        0.0 => (0.0, "s"),
        _ => (seconds * 1e9, "ns"),
    };
    format!("{} {unit}", told_number(value))
}

/// Returns a number with three digits, or with all digits before the point. A whole number has no point.
pub fn told_number(value: f64) -> String {
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
        let values = sorted([3.0, 1.0, 4.0, 2.0]);
        let at = |share| quantile(&values, share);
        assert_eq!((at(0.0), at(0.25), at(0.5)), (Some(1.0), Some(1.0), Some(2.0)));
        assert_eq!((at(0.51), at(0.99), at(1.0)), (Some(3.0), Some(4.0), Some(4.0)));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn of_two_hundred_the_ninety_ninth_percentile_is_the_second_but_one_from_the_end() {
        let values = sorted((1..=200).map(f64::from));
        assert_eq!(quantile(&values, 0.99), Some(198.0));
    }

    #[test]
    fn runs_are_told_by_their_median_with_the_extremes() {
        let spread = Spread::of([0.3, 0.1, 0.2]).unwrap();
        assert_eq!(spread, Spread { median: 0.2, least: 0.1, most: 0.3 });
        assert_eq!(spread.told(told_seconds), "200 ms (100 ms–300 ms)");
        assert_eq!(Spread::of([1.5]).unwrap().told(told_seconds), "1.50 s");
        assert_eq!(
            Spread::of([0.1, 0.2, 0.4, 9.0]).unwrap().told(told_seconds),
            "300 ms (100 ms–9 s)"
        );
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        for (seconds, text) in [
            (12.345, "12.3 s"),
            (0.012_34, "12.3 ms"),
            (-0.001_5, "-1.50 ms"),
            (0.000_000_123, "123 ns"),
            (0.000_045_12, "45.1 µs"),
            (0.0, "0 s"),
        ] {
            assert_eq!(told_seconds(seconds), text);
        }
        assert_eq!([12_345.6, 15.0, 0.0, -0.0].map(told_number), ["12346", "15", "0", "0"]);
    }
}
