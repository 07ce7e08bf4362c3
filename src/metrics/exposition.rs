//! The answer to a scrape.

use std::sync::Arc;

use axum::{Router, http::header, response::IntoResponse, routing::get};
use prometheus_client::{encoding::text, registry::Registry};

/// The content type of the answer.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of these registries, in the text format of OpenMetrics.
pub(crate) fn text(registries: &[&Registry]) -> String {
    let mut text = String::new();
    // Writing to a String never fails.
    for registry in registries {
        let _ = text::encode_registry(&mut text, registry);
    }
    let _ = text::encode_eof(&mut text);
    text
}

/// The answer with this text.
pub(crate) fn page(text: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text)
}

/// Answers `GET /metrics`.
pub(crate) fn routes(text: impl Fn() -> String + Send + Sync + 'static) -> Router {
    let text = Arc::new(text);
    let scrape = move || {
        let page = text();
        async move { self::page(page) }
    };
    Router::new().route("/metrics", get(scrape))
}
