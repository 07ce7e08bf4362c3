//! Reads the metrics of a process, in Prometheus' text format.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The timeout of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A series and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name of the metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

impl Sample {
    /// Returns the value of a label; empty if the series lacks it.
    pub fn label(&self, name: &str) -> String {
        self.labels.get(name).cloned().unwrap_or_default()
    }
}

/// Values, grouped by the values of two labels.
pub type Sums = BTreeMap<[String; 2], f64>;

/// Reads the metrics of a process.
pub async fn scrape(address: &str) -> Result<Vec<Sample>> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        // With HTTP/1.0, the answer ends with the connection, and is not chunked.
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = timeout(PATIENCE, ask).await.context("no answer")??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
    ensure!(head.split(' ').nth(1) == Some("200"), "{address} answers {head}");
    Ok(samples(body))
}

/// Returns the samples of a page. No label that is used here has a quote or a comma in its value.
pub fn samples(page: &str) -> Vec<Sample> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        // Labels may contain spaces.
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| {
            let (name, value) = label.split_once("=\"")?;
            Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
        });
        let labels = labels.collect();
        Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
    };
    lines.filter_map(sample).collect()
}

/// Returns the value of a series without labels.
pub fn value(samples: &[Sample], name: &str) -> Option<f64> {
    samples.iter().find(|it| it.name == name && it.labels.is_empty()).map(|it| it.value)
}

/// Returns by how much the counters of one name have grown, added up by two of their labels. Counters that have not
/// grown are left out.
pub fn growth(before: &[Sample], after: &[Sample], name: &str, labels: [&str; 2]) -> Sums {
    let mut sums = Sums::new();
    for (samples, sign) in [(before, -1.0), (after, 1.0)] {
        for sample in samples.iter().filter(|sample| sample.name == name) {
            *sums.entry(labels.map(|label| sample.label(label))).or_default() +=
                sign * sample.value;
        }
    }
    sums.retain(|_, value| *value > 0.0);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_read_with_their_labels_and_comments_are_not() {
        let all = samples("# HELP a A thing.\na{b=\"c d\",e=\"+Inf\"} 1.5\na_count 2\n# EOF\n");
        assert_eq!(
            (all.len(), all[0].label("b"), all[0].label("e")),
            (2, "c d".into(), "+Inf".into())
        );
        assert_eq!(
            (value(&all, "a_count"), value(&all, "a"), all[0].value),
            (Some(2.0), None, 1.5)
        );
    }

    #[test]
    fn counters_are_added_up_by_labels_and_what_has_not_grown_is_left_out() {
        let before = samples("a{b=\"1\"} 5\na{b=\"2\",c=\"x\"} 3\na{b=\"2\",c=\"y\"} 4\n");
        let after = samples(
            "a{b=\"1\"} 5\na{b=\"2\",c=\"x\"} 4\na{b=\"2\",c=\"y\"} 5\na{b=\"3\"} 1\nab 9\n",
        );
        let grown = growth(&before, &after, "a", ["b", ""]);
        let wanted =
            [("2", 2.0), ("3", 1.0)].map(|(b, value)| ([b.to_owned(), String::new()], value));
        assert_eq!(grown, wanted.into());
    }
}
