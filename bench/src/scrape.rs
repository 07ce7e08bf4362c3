//! Reads the metrics of a process.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The timeout of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A series and its value, as `name{label="value"}` and a number.
pub type Sample = (String, f64);

/// The name of the store in the results, with or without an API server.
pub const STORE: &str = "etcd";
/// The size of a store's database, without the free space in its file.
pub const DATABASE: &str = "etcd_mvcc_db_total_size_in_use_in_bytes";

/// Values, grouped by the values of the requested labels.
pub type Sums<const LABELS: usize> = BTreeMap<[String; LABELS], f64>;

/// Whether a series of a store is kept. A store has many series.
pub fn is_kept_of_store(series: &str) -> bool {
    series.starts_with("etcd_disk_") || series == DATABASE
}

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

/// Returns the series of a page in Prometheus' text format.
pub fn samples(body: &str) -> Vec<Sample> {
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            // Labels may contain spaces.
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// Returns the value of a series without labels.
pub fn value(samples: &[Sample], name: &str) -> Option<f64> {
    samples.iter().find(|(series, _)| series == name).map(|(_, value)| *value)
}

/// Adds up the series of one name by some of their labels. A label that a series lacks counts as empty.
pub fn sums<const LABELS: usize>(
    samples: &[Sample],
    name: &str,
    labels: [&str; LABELS],
) -> Sums<LABELS> {
    let mut sums = Sums::new();
    for (series, value) in samples {
        let (of, rest) = series.split_once('{').unwrap_or((series, ""));
        if of == name {
            let all = labels_of(rest);
            let key = labels.map(|label| all.get(label).cloned().unwrap_or_default());
            *sums.entry(key).or_default() += value;
        }
    }
    sums
}

/// Returns by how much counters have grown, without the ones that have not.
pub fn growth<const LABELS: usize>(before: &Sums<LABELS>, mut after: Sums<LABELS>) -> Sums<LABELS> {
    after.retain(|key, value| {
        *value -= before.get(key).copied().unwrap_or_default();
        *value > 0.0
    });
    after
}

/// Parses `a="b",c="d"}`. A value may contain any characters; quotes and backslashes are escaped with a backslash.
fn labels_of(mut rest: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while let Some((name, quoted)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        let mut end = quoted.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                _ => value.push(character),
            }
        }
        labels.insert(name.trim_start_matches(',').trim().to_owned(), value);
        rest = &quoted[end..];
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_read_with_their_labels_and_comments_are_not() {
        let body = "# HELP a A thing.\na{b=\"c d\"} 1.5\na_count 2\n# EOF\n";
        let samples = samples(body);
        assert_eq!(samples, [("a{b=\"c d\"}".to_owned(), 1.5), ("a_count".to_owned(), 2.0)]);
        assert_eq!(value(&samples, "a_count"), Some(2.0));
        assert_eq!(value(&samples, "a"), None);
    }

    #[test]
    fn labels_may_hold_what_stands_between_labels() {
        let labels = labels_of(r#"a="1,b=\"2\"",c="",d="}"}"#);
        let wanted = [("a", "1,b=\"2\""), ("c", ""), ("d", "}")];
        assert_eq!(labels, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn series_are_added_up_by_the_labels_asked_for() {
        let page = "a{verb=\"GET\",code=\"200\"} 3\na{verb=\"GET\",code=\"404\"} 1\na{code=\"200\"} 2\nab{verb=\"GET\"} 9\n";
        let sums = sums(&samples(page), "a", ["verb"]);
        assert_eq!(sums, [(["GET".to_owned()], 4.0), ([String::new()], 2.0)].into());
    }

    #[test]
    fn what_has_not_grown_is_left_out_and_what_is_new_counts_from_zero() {
        let of = |page: &str| sums(&samples(page), "a", ["b"]);
        let grown = growth(
            &of("a{b=\"1\"} 5\na{b=\"2\"} 7\n"),
            of("a{b=\"1\"} 5\na{b=\"2\"} 9\na{b=\"3\"} 1\n"),
        );
        assert_eq!(grown, [(["2".to_owned()], 2.0), (["3".to_owned()], 1.0)].into());
    }
}
