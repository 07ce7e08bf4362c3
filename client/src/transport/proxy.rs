//! Decides whether the API server is reached through a proxy.
//!
//! A `proxy-url` of the kubeconfig always takes precedence, as for kubectl. Otherwise the environment is read
//! as curl reads it: `https_proxy` before `HTTPS_PROXY`, `all_proxy` after them, and `no_proxy` before
//! `NO_PROXY`. An empty variable counts as unset. For an http:// server only `http_proxy` in lower case is
//! read: a client that sends a request to a CGI program can set the upper-case variable.

use std::net::IpAddr;

use http::{HeaderValue, Uri, uri::Scheme};
use hyper_util::client::proxy::matcher::Matcher;

/// A proxy that opens a tunnel for CONNECT.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    /// Scheme, host and port.
    pub uri: Uri,
    /// The credentials for the proxy, as a header. Never printed.
    pub authorization: Option<HeaderValue>,
}

/// A proxy that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the proxy in {origin} cannot be used: expected http://HOST:PORT or https://HOST:PORT, with \
     USER:PASSWORD@ before the host if the proxy asks for them"
)]
pub struct ProxyError {
    /// The variable, or the field of the kubeconfig. Its value is never shown: it may contain a password.
    origin: &'static str,
}

impl Proxy {
    /// Returns the proxy that the kubeconfig names.
    pub(super) fn named(url: &str) -> Result<Self, ProxyError> {
        Self::parse(url).ok_or(ProxyError { origin: "proxy-url of the kubeconfig" })
    }

    /// Returns the proxy that the environment names for a target, unless it exempts the target.
    pub(super) fn of_environment(
        target: &Uri,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ProxyError> {
        const HTTPS: &[&str] = &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
        const HTTP: &[&str] = &["http_proxy", "all_proxy", "ALL_PROXY"];
        let set = |name: &&'static str| {
            let value = variable(name).filter(|value| !value.trim().is_empty())?;
            Some((*name, value))
        };
        let names = if target.scheme() == Some(&Scheme::HTTP) { HTTP } else { HTTPS };
        let Some((origin, url)) = names.iter().find_map(set) else { return Ok(None) };
        let exempt = ["no_proxy", "NO_PROXY"].iter().find_map(set);
        if exempt.is_some_and(|(_, list)| exempts(&list, target)) {
            return Ok(None);
        }
        Self::parse(&url).map(Some).ok_or(ProxyError { origin })
    }

    fn parse(url: &str) -> Option<Self> {
        let url = url.trim();
        let found = Matcher::builder().all(url).build();
        let found = found.intercept(&Uri::from_static("https://any.invalid"))?;
        let spoken = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&found.uri().scheme());
        let host = found.uri().host().is_some_and(|host| !host.is_empty());
        (spoken && host)
            .then(|| Self { uri: found.uri().clone(), authorization: found.basic_auth().cloned() })
    }

    /// The host of the proxy, for messages.
    pub(super) fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }
}

/// Whether a list of exceptions contains the target. An entry is a host with all its subdomains, an address,
/// a network (each with or without a port), or `*`.
fn exempts(list: &str, target: &Uri) -> bool {
    let Some(host) = target.host() else { return false };
    let port = target.port_u16().unwrap_or_else(|| match target.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => 80,
        _ => 443,
    });
    let entries: Vec<&str> =
        list.split([',', ' ', '\t', '\n']).filter(|entry| !entry.is_empty()).collect();
    if entries.contains(&"*") {
        return true;
    }
    let here =
        entries.into_iter().map(split_port).filter(|(_, its)| its.is_none_or(|it| it == port));
    let hosts: Vec<&str> = here.map(|(host, _)| host).collect();
    let matcher = Matcher::builder().all("http://any.invalid").no(hosts.join(",")).build();
    let plain = format!("https://{}/", host.trim_end_matches('.'));
    plain.parse().is_ok_and(|plain| matcher.intercept(&plain).is_none())
}

/// Splits an entry into the host, address or network as the matcher expects it, and the port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    let (host, port) = match entry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address, rest.strip_prefix(':')),
        None if entry.parse::<IpAddr>().is_ok() || entry.contains('/') => (entry, None),
        None => entry.split_once(':').map_or((entry, None), |(host, port)| (host, Some(port))),
    };
    let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
    // An invalid port matches no port.
    (host.trim_end_matches('.'), port.map(|port| port.parse().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "http://proxy.example:3128";

    fn asked(target: &str, variables: &[(&str, &str)]) -> Result<Option<String>, ProxyError> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let proxy = Proxy::of_environment(&target.parse().expect("a URL"), variable)?;
        Ok(proxy.map(|proxy| proxy.uri.to_string()))
    }

    #[test]
    fn the_proxy_is_chosen_as_curl_chooses_it() {
        let server = "https://api.example:6443";
        for (variables, chosen) in [
            (&[][..], None),
            (&[("https_proxy", "http://a:1"), ("HTTPS_PROXY", "http://b:1")], Some("http://a:1/")),
            (&[("https_proxy", ""), ("HTTPS_PROXY", "http://b:1")], Some("http://b:1/")),
            (&[("HTTPS_PROXY", "http://b:1"), ("all_proxy", "http://c:1")], Some("http://b:1/")),
            (&[("ALL_PROXY", "http://c:1")], Some("http://c:1/")),
            (&[("http_proxy", "http://d:1"), ("HTTP_PROXY", "http://d:1")], None),
            (&[("HTTPS_PROXY", "proxy.example:3128")], Some("http://proxy.example:3128/")),
            (&[("HTTPS_PROXY", "https://proxy.example")], Some("https://proxy.example/")),
        ] {
            assert_eq!(asked(server, variables), Ok(chosen.map(str::to_owned)), "{variables:?}");
        }
        let plain = "http://api.example";
        assert_eq!(asked(plain, &[("HTTP_PROXY", PROXY)]), Ok(None));
        assert_eq!(asked(plain, &[("http_proxy", PROXY)]), Ok(Some(format!("{PROXY}/"))));
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_told_without_its_password() {
        for url in ["socks5://user:secret@proxy:1080", "ftp://user:secret@p", "http://", "::secret"]
        {
            let error = asked("https://api.example", &[("HTTPS_PROXY", url)]).expect_err(url);
            assert!(error.to_string().starts_with("the proxy in HTTPS_PROXY cannot be used"));
            assert!(!error.to_string().contains("secret"), "{error}");
            let exempt = [("HTTPS_PROXY", url), ("NO_PROXY", "api.example")];
            assert_eq!(asked("https://api.example", &exempt), Ok(None), "{url}");
        }
    }

    #[test]
    fn a_password_is_sent_as_it_was_meant() {
        let proxy = Proxy::named("http://Aladdin:open%20sesame@proxy:3128").expect("a proxy");
        assert_eq!(proxy.uri, "http://proxy:3128/");
        assert_eq!(proxy.authorization.expect("sent"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn exceptions_are_read_as_curl_reads_them() {
        let name = "https://api.prod.example:6443";
        let v4 = "https://10.1.2.3:6443";
        let v6 = "https://[fd00::7]:6443";
        for (list, target, exempt) in [
            ("api.prod.example", name, true),
            ("API.Prod.Example", name, true),
            ("api.prod.example.", name, true),
            ("prod.example", name, true),
            (".prod.example", name, true),
            ("*.prod.example", name, true),
            (".api.prod.example", name, true),
            ("example", name, true),
            ("pi.prod.example", name, false),
            ("api.prod", name, false),
            ("x.api.prod.example", name, false),
            ("a.example, api.prod.example", name, true),
            ("a.example api.prod.example", name, true),
            ("*", name, true),
            ("*", v4, true),
            ("a.example,*", v6, true),
            ("", name, false),
            (",,", name, false),
            ("api.prod.example:6443", name, true),
            ("api.prod.example:443", name, false),
            ("api.prod.example:https", name, false),
            (".example:6443", name, true),
            ("api.prod.example:443", "https://api.prod.example", true),
            ("api.prod.example", "https://api.prod.example.:6443", true),
            ("10.1.2.3", v4, true),
            ("10.1.2.3:6443", v4, true),
            ("10.1.2.3:443", v4, false),
            ("10.1.2.4", v4, false),
            ("10.0.0.0/8", v4, true),
            ("10.9.9.9/8", v4, true),
            ("10.2.0.0/16", v4, false),
            ("2.3", v4, false),
            ("fd00::7", v6, true),
            ("[fd00::7]", v6, true),
            ("[fd00::7]:6443", v6, true),
            ("[fd00::7]:443", v6, false),
            ("fd00:0:0::7", v6, true),
            ("fd00::/8", v6, true),
            ("fe80::/10", v6, false),
        ] {
            assert_eq!(exempts(list, &target.parse().expect("a URL")), exempt, "{list:?} {target}");
        }
    }
}
