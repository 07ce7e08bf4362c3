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

/// Returns the page of a process's metrics.
pub async fn page(address: &str) -> Result<String> {
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
    Ok(body.to_owned())
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
pub fn value(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_read_with_their_labels_and_comments_are_not() {
        let page = "# HELP a A thing.\na{b=\"c d\",e=\"+Inf\"} 1.5\na_count 2\n# EOF\n";
        let all = samples(page);
        assert_eq!(
            (all.len(), all[0].label("b"), all[0].label("e")),
            (2, "c d".into(), "+Inf".into())
        );
        assert_eq!(
            (value(page, "a_count"), value(page, "a"), all[0].value),
            (Some(2.0), None, 1.5)
        );
    }
}
