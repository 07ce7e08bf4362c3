//! Resolves the Location of an answer.

use http::Uri;

use super::failure::ProbeFailure;
use super::fields::{host_of, path_of, quote};
use super::spec::{Scheme, Target, Url};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// To the same host, but perhaps to another port or scheme, as from http to https.
    Here { url: Url, absolute: bool },
    /// To another host, or to a URL that is not HTTP.
    Elsewhere(String),
}

/// Resolves a Location against the page that it was received from (RFC 3986, 5.2, to the extent that HTTP
/// paths need).
pub(super) fn redirect(from: &Url, location: &str) -> Result<Redirect, ProbeFailure> {
    let lost = || ProbeFailure::RedirectedNowhere(quote(location));
    let target = location.split('#').next().unwrap_or_default();
    // A colon before the first slash ends a scheme.
    let absolute = target.starts_with("//")
        || target.split(['/', '?']).next().is_some_and(|first| first.contains(':'));
    if absolute {
        let whole = match target.strip_prefix("//") {
            Some(rest) => format!("{}://{rest}", from.scheme),
            None => target.to_owned(),
        };
        return elsewhere(from, &whole).ok_or_else(lost);
    }
    let path = resolve(from.path.path(), target);
    let path = path_of(&path).map_err(|_| lost())?;
    Ok(Redirect::Here { url: Url { path, ..from.clone() }, absolute })
}

fn elsewhere(from: &Url, whole: &str) -> Option<Redirect> {
    let Some((scheme, _)) = whole.split_once("://") else {
        return Some(Redirect::Elsewhere(whole.to_owned()));
    };
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Some(Redirect::Elsewhere(whole.to_owned())),
    };
    let uri: Uri = whole.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    if !host.eq_ignore_ascii_case(&from.target.host) {
        return Some(Redirect::Elsewhere(host.to_owned()));
    }
    let port = uri.port_u16().unwrap_or(scheme.default_port());
    let target = Target { host: host_of(host).ok()?, port };
    let path = path_of(uri.path_and_query().map_or("/", |path| path.as_str())).ok()?;
    Some(Redirect::Here { url: Url { scheme, target, path }, absolute: true })
}

fn resolve(base: &str, relative: &str) -> String {
    let (path, query) = relative.split_at(relative.find('?').unwrap_or(relative.len()));
    let merged = match (path.is_empty(), path.starts_with('/')) {
        (true, _) => base.to_owned(),
        (_, true) => path.to_owned(),
        (_, false) => format!("{}/{path}", base.rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    let mut segments: Vec<&str> = Vec::new();
    for segment in merged.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    // A path that ends in a dot segment is a folder.
    let folder = merged.ends_with("/.") || merged.ends_with("/..");
    let slash = if folder && !segments.is_empty() { "/" } else { "" };
    format!("/{}{slash}{query}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::spec::{Check, Http};
    use super::*;

    fn url(text: &str) -> Url {
        match text.parse() {
            Ok(Check::Http(Http { url, .. })) => url,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_location_on_the_same_host_is_resolved_as_a_browser_does() {
        let from = url("http://app:8080/a/b?x=1");
        for (location, to) in [
            ("/c?y#part", "http://app:8080/c?y"),
            ("c", "http://app:8080/a/c"),
            ("../c/./d", "http://app:8080/c/d"),
            ("../../..", "http://app:8080/"),
            ("c/..", "http://app:8080/a/"),
            ("?y=2", "http://app:8080/a/b?y=2"),
            ("http://APP:9090", "http://APP:9090/"),
            ("https://app/c:d", "https://app:443/c:d"),
            ("//app:1/c", "http://app:1/c"),
            ("/c:d", "http://app:8080/c:d"),
        ] {
            let Ok(Redirect::Here { url, absolute }) = redirect(&from, location) else {
                panic!("{location} leads elsewhere");
            };
            assert_eq!(url.to_string(), to, "{location}");
            assert_eq!(absolute, location.contains("//"), "{location}");
        }
    }

    #[test]
    fn a_location_on_another_host_is_named() {
        let from = url("http://[::1]:8080/");
        for (location, host) in [
            ("http://[::2]:8080/", "::2"),
            ("//login.example.com/", "login.example.com"),
            ("http://[::1]@example.com/", "example.com"),
            ("mailto:root", "mailto:root"),
            ("ftp://[::1]/", "ftp://[::1]/"),
        ] {
            match redirect(&from, location) {
                Ok(Redirect::Elsewhere(named)) => assert_eq!(named, host),
                other => panic!("{location}: {other:?}"),
            }
        }
        assert!(matches!(redirect(&from, "http://[::1]/"), Ok(Redirect::Here { .. })));
    }

    #[test]
    fn a_location_that_is_no_url_leads_nowhere() {
        for location in ["http://", "/a b", "http://a b/", "/\u{fffd}"] {
            let error = redirect(&url("http://app:80/"), location).expect_err(location);
            assert!(error.to_string().contains("leads nowhere"), "{error}");
        }
    }
}
