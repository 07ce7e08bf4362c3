//! The contents of /metrics, of the operator or of an agent.

use std::collections::{BTreeMap, BTreeSet};

use super::{Operator, http};

/// A scrape. The parser is strict: text that does not follow the format is an error.
#[derive(Debug, Default)]
pub struct Scrape {
    /// By name and labels, as in `name{label="value"}`.
    samples: BTreeMap<String, f64>,
    help: BTreeSet<String>,
    /// The exemplars, by the series that they belong to: their labels.
    exemplars: BTreeMap<String, String>,
    types: BTreeMap<String, String>,
}

impl Operator {
    /// Scrapes `/metrics`. The operator must run with `--metrics-bind-address`.
    pub async fn scrape(&self) -> Scrape {
        let address = self.address("metrics-bind-address").await;
        Scrape::at(&address).await.expect("an answer")
    }
}

impl Scrape {
    /// Scrapes the `/metrics` of an address. Returns `None` if nothing answers there.
    pub async fn at(address: &str) -> Option<Self> {
        let answer = http::get(address, "/metrics").await?;
        assert_eq!(answer.code, 200);
        let format = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert!(answer.head.contains(format), "{}", answer.head);
        Some(Self::read(&answer.body))
    }

    fn read(text: &str) -> Self {
        let mut scrape = Self::default();
        let lines = text.strip_suffix("# EOF\n").expect("the end mark");
        for line in lines.lines() {
            scrape.take(line);
        }
        scrape
    }

    fn take(&mut self, line: &str) {
        if let Some(meta) = line.strip_prefix("# ") {
            let (what, rest) = meta.split_once(' ').expect(line);
            let (name, value) = rest.split_once(' ').expect(line);
            let fresh = match what {
                "HELP" => self.help.insert(name.to_owned()),
                "TYPE" => self.types.insert(name.to_owned(), value.to_owned()).is_none(),
                "UNIT" => name.ends_with(value),
                _ => false,
            };
            assert!(fresh, "{line}");
            return;
        }
        let (line, exemplar) = match line.split_once(" # {") {
            Some((line, exemplar)) => (line, exemplar.split_once("} ")),
            None => (line, None),
        };
        let (series, value) = line.rsplit_once(' ').expect(line);
        let name = series.split_once('{').map_or(series, |(name, labels)| {
            let labels = labels.strip_suffix('}').expect(line);
            for label in labels.split("\",") {
                let (key, value) = label.split_once("=\"").expect(line);
                assert!(key.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
                assert!(!value.contains('\n'), "{line}");
            }
            name
        });
        self.assert_described(name, line);
        let value: f64 = value.parse().expect(line);
        if let Some((labels, example)) = exemplar {
            assert!(name.ends_with("_bucket") && example.parse::<f64>().is_ok(), "{line}");
            self.exemplars.insert(series.to_owned(), labels.to_owned());
        }
        assert_eq!(self.samples.insert(series.to_owned(), value), None, "twice: {line}");
    }

    /// Checks that the sample belongs to a metric with a type and a help text.
    fn assert_described(&self, name: &str, line: &str) {
        assert!(name.starts_with("beatkeeper_") || name.starts_with("process_"), "{line}");
        let parts = ["", "_total", "_bucket", "_count", "_sum"];
        let family = parts.iter().find_map(|part| {
            let family = name.strip_suffix(part)?;
            let fits = match self.types.get(family)?.as_str() {
                "gauge" => part.is_empty(),
                "counter" => *part == "_total",
                "histogram" => matches!(*part, "_bucket" | "_count" | "_sum"),
                _ => false,
            };
            fits.then_some(family)
        });
        let family = family.unwrap_or_else(|| panic!("of no metric: {line}"));
        assert!(self.help.contains(family), "without help: {line}");
    }

    /// The value of a series, or 0 if the series does not exist yet.
    pub fn value(&self, series: &str) -> f64 {
        self.samples.get(series).copied().unwrap_or_default()
    }

    /// The labels of the exemplars of a metric.
    pub fn examples(&self, name: &str) -> Vec<String> {
        let all = self.exemplars.iter().filter(|(series, _)| series.starts_with(name));
        all.map(|(_, labels)| labels.clone()).collect()
    }

    /// All series of a metric with their values.
    pub fn all(&self, name: &str) -> BTreeMap<&str, f64> {
        let begins = format!("{name}{{");
        let samples = self.samples.iter();
        samples
            .filter(|(series, _)| *series == name || series.starts_with(&begins))
            .map(|(series, value)| (series.as_str(), *value))
            .collect()
    }
}
