//! The dashboards of the chart.

use serde_json::Value;

use super::helm::chart;
use crate::support::prometheus::Prometheus;

/// The titles and the queries of all panels of all dashboards.
fn queries() -> Vec<(String, String)> {
    let files = std::fs::read_dir(chart().join("files/dashboards")).unwrap();
    let mut queries = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                queries.push((text(&panel["title"]), text(&target["expr"])));
            }
        }
    }
    queries
}

/// Runs the query of each panel, with the variables filled in as Grafana does.
pub async fn every_panel_has_data(prometheus: &Prometheus) {
    let queries = queries();
    assert!(queries.len() >= 20, "{queries:?}");
    for (title, query) in queries {
        let filled = [
            ("$namespace", "beatkeeper"),
            ("$job", "beatkeeper-metrics"),
            ("$registration_namespace", ".*"),
            ("$__rate_interval", "1m"),
            ("$__range", "1m"),
        ]
        .iter()
        .fold(query, |query, (variable, value)| query.replace(variable, value));
        assert!(!filled.contains('$'), "{title}: a variable is left in {filled}");
        prometheus.shows(&filled).await;
    }
}
