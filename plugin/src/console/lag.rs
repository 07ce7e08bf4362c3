//! Reads the prune lag from the operator's metrics.

use serde::Serialize;

/// The histogram of the metrics that is read.
const HISTOGRAM: &str = "beatkeeper_prune_lag_seconds";

/// How long after their deadlines instances were pruned, since the operator was started.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Lag {
    /// Half of the prunes took at most this many seconds.
    pub p50: f64,
    /// All but one of a hundred took at most this many seconds.
    pub p99: f64,
    /// How many prunes there were; at least one.
    pub count: u64,
}

/// Reads metrics in the text format; `None` if nothing was pruned, or there is no such histogram.
///
/// Between the bounds of a bucket it interpolates, as Prometheus does.
pub fn read(metrics: &str) -> Option<Lag> {
    let mut buckets: Vec<(f64, u64)> = metrics.lines().filter_map(bucket).collect();
    buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let (_, count) = *buckets.last().filter(|(_, count)| *count > 0)?;
    let quantile = |of: f64| {
        // Counts are far below 2⁵³.
        #[expect(clippy::cast_precision_loss, reason = "see above")]
        let wanted = of * count as f64;
        let mut below = (0.0, 0.0);
        for &(bound, reached) in &buckets {
            #[expect(clippy::cast_precision_loss, reason = "see above")]
            let reached = reached as f64;
            let (from, before) = below;
            if reached >= wanted {
                return match bound.is_finite() && reached > before {
                    true => from + (bound - from) * (wanted - before) / (reached - before),
                    false => from,
                };
            }
            below = (bound, reached);
        }
        below.0
    };
    Some(Lag { p50: quantile(0.5), p99: quantile(0.99), count })
}

/// The bound and the count of a line that is a bucket of the histogram.
fn bucket(line: &str) -> Option<(f64, u64)> {
    let rest = line.strip_prefix(HISTOGRAM)?.strip_prefix("_bucket{")?;
    let (labels, value) = rest.split_once('}')?;
    let bound = labels.split(',').find_map(|label| label.strip_prefix("le=\""))?;
    let bound = bound.strip_suffix('"')?;
    let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
    Some((bound, value.split_whitespace().next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "\
# TYPE beatkeeper_prune_lag_seconds histogram
beatkeeper_prune_lag_seconds_sum 1.5
beatkeeper_prune_lag_seconds_count 100
beatkeeper_prune_lag_seconds_bucket{le=\"0.01\"} 40
beatkeeper_prune_lag_seconds_bucket{le=\"0.02\"} 60
beatkeeper_prune_lag_seconds_bucket{le=\"0.1\"} 100
beatkeeper_prune_lag_seconds_bucket{le=\"+Inf\"} 100
beatkeeper_other_seconds_bucket{le=\"+Inf\"} 7
# EOF
";

    #[test]
    fn quantiles_lie_between_the_bounds_of_their_buckets() {
        let lag = read(METRICS).unwrap();
        assert!((lag.p50 - 0.015).abs() < 1e-9, "{lag:?}");
        assert!((lag.p99 - 0.098).abs() < 1e-9, "{lag:?}");
        assert_eq!(lag.count, 100);
    }

    #[test]
    fn what_exceeds_all_bounds_is_as_long_as_the_last_of_them() {
        let metrics = "beatkeeper_prune_lag_seconds_bucket{le=\"0.1\"} 1\n\
                       beatkeeper_prune_lag_seconds_bucket{le=\"+Inf\"} 4\n";
        assert!((read(metrics).unwrap().p99 - 0.1).abs() < 1e-9);
    }

    #[test]
    fn before_the_first_prune_there_is_no_lag() {
        assert_eq!(read("beatkeeper_prune_lag_seconds_bucket{le=\"+Inf\"} 0\n"), None);
        assert_eq!(read("<html>"), None);
        assert_eq!(read("beatkeeper_prune_lag_seconds_bucket{le=\"x\"} y\n"), None);
    }
}
