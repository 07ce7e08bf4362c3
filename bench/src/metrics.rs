//! Reads the metrics of a process, in Prometheus' text format.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::{Client, Config};
use tokio::time::timeout;

/// The timeout of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns a client of a process that serves its metrics over plain HTTP, at HOST:PORT.
pub fn client(address: &str) -> Result<Client> {
    let mut config = Config::new(format!("http://{address}").parse()?);
    // Without a list, even an empty one, the client would read the certificates of this machine.
    config.root_cert = Some(Vec::new());
    beatkeeper_cluster::connect(&config)
}

/// Returns the page of a process's metrics.
pub async fn page(process: &Client) -> Result<String> {
    // No connection stays open: a process that is measured may be asked to end.
    let request = http::Request::get("/metrics").header("connection", "close").body(Vec::new())?;
    Ok(timeout(PATIENCE, process.request_text(request)).await.context("no answer")??)
}

/// Returns the value of a series without labels.
pub fn value(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_found_by_its_whole_name() {
        let page = "# HELP a A thing.\na{b=\"c\"} 1.5\na_count 2\n# EOF\n";
        assert_eq!((value(page, "a_count"), value(page, "a")), (Some(2.0), None));
    }
}
