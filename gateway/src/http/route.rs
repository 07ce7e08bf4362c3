//! What a request asks for, by its method and path.

use beatkeeper_api::beats::BEATS_PATH;
use beatkeeper_core::vocabulary::key::Key;
use http::{Method, Uri};

use crate::http::refusal::Refused;

const PREFIX: &str = "/apis/coordination.k8s.io/v1/namespaces/";
const LEASES: &str = "/leases/";

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// A beat for this Lease.
    Beat(Key),
    /// Beats of many instances.
    Beats,
}

/// What a request with this method and address asks for.
///
/// # Errors
/// [`Refused`].
pub fn of(method: &Method, uri: &Uri) -> Result<Route, Refused> {
    let path = uri.path();
    if path == BEATS_PATH {
        let allow = (method == Method::POST).then_some(Route::Beats);
        return allow.ok_or(Refused::Method { method: method.to_string(), allow: "POST" });
    }
    let rest = path.strip_prefix(PREFIX).ok_or(Refused::Path)?;
    let (namespace, name) = rest.split_once(LEASES).ok_or(Refused::Path)?;
    if !is_label(namespace) || !is_subdomain(name) {
        return Err(Refused::Path);
    }
    if method != Method::PATCH {
        return Err(Refused::Method { method: method.to_string(), allow: "PATCH" });
    }
    let parameters = uri.query().unwrap_or_default().split('&');
    for parameter in parameters {
        // A dry run has to change nothing, and a beat keeps an instance alive.
        if parameter.split('=').next() == Some("dryRun") {
            return Err(Refused::DryRun);
        }
    }
    Ok(Route::Beat(Key::new(namespace, name)))
}

/// Whether a Lease can have this namespace and this name. No other one gets into a stream.
pub fn is_lease(namespace: &str, name: &str) -> bool {
    is_label(namespace) && is_subdomain(name)
}

/// Whether a namespace can have this name (RFC 1123).
fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Whether a Lease can have this name.
fn is_subdomain(name: &str) -> bool {
    let part = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty()
            && part.bytes().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(method: &str, uri: &str) -> Result<Route, Refused> {
        of(&method.parse().unwrap(), &uri.parse().unwrap())
    }

    fn path(namespace: &str, name: &str) -> String {
        format!("{PREFIX}{namespace}{LEASES}{name}")
    }

    #[test]
    fn the_path_of_a_lease_is_a_beat_and_its_query_may_name_a_field_manager() {
        let beat = Ok(Route::Beat(Key::new("shop", "greeter.vm-1")));
        for query in ["", "?", "?fieldManager=kubectl-patch", "?pretty=true&fieldValidation=Strict"]
        {
            assert_eq!(route("PATCH", &format!("{}{query}", path("shop", "greeter.vm-1"))), beat);
        }
        assert_eq!(route("POST", BEATS_PATH), Ok(Route::Beats));
    }

    #[test]
    fn a_dry_run_is_no_beat() {
        let uri = path("shop", "greeter.vm-1");
        for query in ["?dryRun=All", "?a=b&dryRun=All", "?dryRun"] {
            assert_eq!(route("PATCH", &format!("{uri}{query}")), Err(Refused::DryRun));
        }
    }

    #[test]
    fn other_paths_and_other_methods_are_refused() {
        for uri in ["/", "/apis", "/livez", &path("shop", ""), &path("", "a"), &path("Shop", "a")] {
            assert_eq!(route("PATCH", uri), Err(Refused::Path), "{uri}");
        }
        for name in ["a/status", "a/", "A", "a_b", "-a", "a-", ".a", "a..b", "%61", "../a", "a%2Fb"]
        {
            assert_eq!(route("PATCH", &path("shop", name)), Err(Refused::Path), "{name}");
        }
        assert!(matches!(
            route("GET", &path("shop", "a")),
            Err(Refused::Method { allow: "PATCH", .. })
        ));
        assert!(matches!(route("GET", BEATS_PATH), Err(Refused::Method { allow: "POST", .. })));
    }

    proptest! {
        #[test]
        fn whatever_the_path_is_it_is_refused_or_names_a_lease(text in "/[!-~]{0,80}") {
            if let Ok(uri) = format!("{PREFIX}shop{text}").parse::<Uri>()
                && let Ok(Route::Beat(key)) = of(&Method::PATCH, &uri)
            {
                prop_assert!(is_lease(&key.namespace, &key.name), "{key}");
            }
        }
    }
}
