//! Reads from the method and the path what a request to the API server asks for.

use http::{Method, Uri};

/// The action, in the terms of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
}

impl Verb {
    /// The name of the verb in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    /// Whether the verb changes something.
    pub fn writes(self) -> bool {
        match self {
            Self::Get | Self::List | Self::Watch => false,
            Self::Create | Self::Update | Self::Patch | Self::Delete => true,
        }
    }
}

/// A request to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiRequest {
    /// The action.
    pub verb: Verb,
    /// The kind that it applies to. It is `Other` for a kind that Beatkeeper does not use, so that the number of values
    /// is limited.
    pub kind: &'static str,
    /// Whether the request concerns only the status.
    pub status: bool,
}

impl ApiRequest {
    /// Parses a request such as `PATCH /apis/GROUP/VERSION/namespaces/NS/RESOURCE/NAME/status`.
    pub fn read(method: &Method, uri: &Uri) -> Self {
        // The API server may have a path prefix.
        let mut path = uri.path().split('/').skip_while(|part| !matches!(*part, "api" | "apis"));
        let versions = if path.next() == Some("api") { 1 } else { 2 };
        let path: Vec<&str> = path.skip(versions).collect();
        let path = match path.as_slice() {
            // The request is for an object in a namespace, and not for the namespace itself.
            ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
            path => path,
        };
        let (resource, named) = match path {
            [resource, name, ..] => (*resource, !name.is_empty()),
            [resource] => (*resource, false),
            [] => ("", true),
        };
        let watch = uri.query().is_some_and(|query| {
            query.split('&').any(|part| matches!(part, "watch" | "watch=1" | "watch=true"))
        });
        let verb = match *method {
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            _ if watch => Verb::Watch,
            _ if named => Verb::Get,
            _ => Verb::List,
        };
        Self { verb, kind: kind(resource), status: path.get(2) == Some(&"status") }
    }
}

fn kind(resource: &str) -> &'static str {
    match resource {
        "endpoints" => "Endpoints",
        "endpointslices" => "EndpointSlice",
        "events" => "Event",
        "leases" => "Lease",
        "nodes" => "Node",
        "pods" => "Pod",
        "serviceregistrations" => "ServiceRegistration",
        "services" => "Service",
        _ => "Other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: Method, uri: &str) -> (&'static str, &'static str, bool) {
        let request = ApiRequest::read(&method, &uri.parse().expect("a URI"));
        (request.verb.as_str(), request.kind, request.status)
    }

    #[test]
    fn a_request_is_told_by_its_method_and_path() {
        let in_shop = "/api/v1/namespaces/shop";
        let cases = [
            (Method::GET, format!("{in_shop}/services/greeter"), ("get", "Service", false)),
            (Method::GET, format!("{in_shop}/pods?limit=500"), ("list", "Pod", false)),
            (Method::GET, "/api/v1/pods?watch=true&x=y".to_owned(), ("watch", "Pod", false)),
            (Method::GET, "/api/v1/nodes/node-1".to_owned(), ("get", "Node", false)),
            (Method::GET, "/api/v1/nodes".to_owned(), ("list", "Node", false)),
            (Method::GET, "/version".to_owned(), ("get", "Other", false)),
            (Method::GET, in_shop.to_owned(), ("get", "Other", false)),
            (Method::DELETE, format!("{in_shop}/endpoints/a"), ("delete", "Endpoints", false)),
            (
                Method::POST,
                "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?".to_owned(),
                ("create", "EndpointSlice", false),
            ),
            (
                Method::PUT,
                "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/a".to_owned(),
                ("update", "EndpointSlice", false),
            ),
            (
                Method::PATCH,
                "/apis/beatkeeper.dev/v1alpha1/namespaces/status/serviceregistrations/status/status"
                    .to_owned(),
                ("patch", "ServiceRegistration", true),
            ),
            (
                Method::GET,
                "https://proxy:6443/k8s/clusters/c-1/apis/coordination.k8s.io/v1/namespaces/shop/leases/status"
                    .to_owned(),
                ("get", "Lease", false),
            ),
        ];
        for (method, uri, expected) in cases {
            assert_eq!(read(method.clone(), &uri), expected, "{method} {uri}");
        }
    }
}
