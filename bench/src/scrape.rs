//! What a process says of itself: its metrics.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A series and its value, as `name{label="value"}` and a number.
pub type Sample = (String, f64);

/// Reads the metrics of a process.
pub async fn scrape(address: &str) -> Result<Vec<Sample>> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        // HTTP/1.0: the answer ends with the connection, and is not cut into chunks.
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

fn samples(body: &str) -> Vec<Sample> {
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            // Labels may hold blanks.
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_read_with_their_labels_and_comments_are_not() {
        let body = "# HELP a A thing.\na{b=\"c d\"} 1.5\na_count 2\n# EOF\n";
        assert_eq!(samples(body), [("a{b=\"c d\"}".to_owned(), 1.5), ("a_count".to_owned(), 2.0)]);
    }
}
