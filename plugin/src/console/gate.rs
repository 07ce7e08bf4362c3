//! Which requests the console answers.
//!
//! On a computer the console has the rights of the user's kubeconfig, and each program on the computer, and each page in
//! the browser, can send it requests. So a request needs a secret in its path. In a cluster the console has no rights, and
//! each request brings its own.
//!
//! A page that has a name of its own resolve to the console's address (DNS rebinding) sends this name as Host, and is
//! refused by it.

use std::{
    fmt::Write,
    net::{Ipv6Addr, SocketAddr},
};

use http::{Method, StatusCode};

/// The bytes of the secret: 192 bits.
const SECRET: usize = 24;

/// Which requests are answered.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Empty, or a slash and the secret.
    prefix: String,
    hosts: Hosts,
}

/// The hosts that requests may be for.
#[derive(Debug, Clone)]
enum Hosts {
    /// These, with the port.
    Here([String; 3]),
    /// These names, with any port: a proxy, or a forwarded port, has another one than the server.
    Named(Vec<String>),
}

impl Hosts {
    fn have(&self, host: &str) -> bool {
        match self {
            Self::Here(hosts) => hosts.iter().any(|own| own.eq_ignore_ascii_case(host)),
            Self::Named(names) => {
                let name = without_port(host);
                names.iter().any(|own| own.eq_ignore_ascii_case(name))
            }
        }
    }
}

/// A Host without its port. An address of IPv6 has brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if !port.ends_with(']') && port.bytes().all(|it| it.is_ascii_digit()) =>
        {
            name
        }
        _ => host,
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its Host is not that of the console.
    Host,
    /// It is not a GET.
    Method,
    /// Its path does not begin with the secret.
    Path,
}

impl Refusal {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Path => StatusCode::NOT_FOUND,
        }
    }

    /// The text of the answer.
    pub fn text(self) -> &'static str {
        match self {
            Self::Host => {
                "This is the console of Beatkeeper. It does not answer for this host: open it by the address that it \
                 printed, or name the host with the chart's value console.hosts.\n"
            }
            Self::Method => "The console only reads; it takes GET alone.\n",
            Self::Path => "There is nothing here. Open the address of the console.\n",
        }
    }
}

impl Gate {
    /// A gate with a new secret, for a server that listens at an address.
    pub fn new(at: SocketAddr) -> Self {
        let bytes: [u8; SECRET] = rand::random();
        let mut secret = String::with_capacity(2 * SECRET);
        for byte in bytes {
            write!(secret, "{byte:02x}").expect("a string takes all text");
        }
        Self::with_secret(at, &secret)
    }

    fn with_secret(at: SocketAddr, secret: &str) -> Self {
        let port = at.port();
        let hosts = [at.to_string(), format!("localhost:{port}"), format!("127.0.0.1:{port}")];
        Self { prefix: format!("/{secret}"), hosts: Hosts::Here(hosts) }
    }

    /// A gate without a secret, for requests to these hosts, and to forwarded ports.
    pub fn named(hosts: &[String]) -> Self {
        let local = ["localhost", "127.0.0.1"].map(str::to_owned);
        let names =
            hosts.iter().cloned().chain(local).chain([format!("[{}]", Ipv6Addr::LOCALHOST)]);
        Self { prefix: String::new(), hosts: Hosts::Named(names.collect()) }
    }

    /// What each path begins with: nothing, or a slash and the secret.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The rest of the path after the prefix, such as `/style.css`; empty if the prefix is all there is.
    ///
    /// # Errors
    /// [`Refusal`], if the request is not answered.
    pub fn admit<'a>(
        &self,
        host: Option<&str>,
        method: &Method,
        path: &'a str,
    ) -> Result<&'a str, Refusal> {
        if !host.is_some_and(|host| self.hosts.have(host)) {
            return Err(Refusal::Host);
        }
        if method != Method::GET {
            return Err(Refusal::Method);
        }
        if self.prefix.is_empty() {
            return Ok(path);
        }
        let inner = path.strip_prefix('/').ok_or(Refusal::Path)?;
        let end = 1 + inner.find('/').unwrap_or(inner.len());
        let (given, rest) = path.split_at(end);
        if is_same(given.as_bytes(), self.prefix.as_bytes()) {
            Ok(rest)
        } else {
            Err(Refusal::Path)
        }
    }
}

/// Compares in a time that does not tell how much of the secret was guessed.
fn is_same(given: &[u8], secret: &[u8]) -> bool {
    let differs = given.iter().zip(secret).fold(0, |differs, (a, b)| differs | (a ^ b));
    given.len() == secret.len() && std::hint::black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::with_secret("127.0.0.1:4000".parse().unwrap(), "5ec4e7")
    }

    fn asked<'a>(host: &str, method: Method, path: &'a str) -> Result<&'a str, Refusal> {
        gate().admit(Some(host), &method, path)
    }

    #[test]
    fn a_get_with_the_secret_at_the_printed_address_is_answered() {
        assert_eq!(asked("127.0.0.1:4000", Method::GET, "/5ec4e7/style.css"), Ok("/style.css"));
        assert_eq!(asked("localhost:4000", Method::GET, "/5ec4e7/"), Ok("/"));
        assert_eq!(asked("127.0.0.1:4000", Method::GET, "/5ec4e7"), Ok(""));
    }

    #[test]
    fn a_foreign_host_is_refused_before_anything_else() {
        for host in ["evil.example", "evil.example:4000", "127.0.0.1", "127.0.0.1:4001", ""] {
            assert_eq!(asked(host, Method::GET, "/5ec4e7/"), Err(Refusal::Host), "{host}");
        }
        assert_eq!(gate().admit(None, &Method::GET, "/5ec4e7/"), Err(Refusal::Host));
    }

    #[test]
    fn whatever_is_no_get_is_refused() {
        for method in [Method::POST, Method::DELETE, Method::PUT, Method::HEAD, Method::OPTIONS] {
            assert_eq!(asked("localhost:4000", method, "/5ec4e7/"), Err(Refusal::Method));
        }
    }

    #[test]
    fn a_path_without_the_secret_is_nothing() {
        for path in ["/", "/style.css", "/5ec4e", "/5ec4e77/", "/5ec4e8/", "//5ec4e7/", "*"] {
            assert_eq!(asked("localhost:4000", Method::GET, path), Err(Refusal::Path), "{path}");
        }
    }

    #[test]
    fn each_console_has_a_secret_of_its_own_with_more_than_128_bits() {
        let at = "127.0.0.1:4000".parse().unwrap();
        let (one, other) = (Gate::new(at), Gate::new(at));
        assert_ne!(one.prefix(), other.prefix());
        assert_eq!((one.prefix().len() - 1) * 4, 192);
    }

    #[test]
    fn in_a_cluster_the_named_hosts_and_forwarded_ports_are_answered_with_any_port_and_no_other() {
        let gate = Gate::named(&["beats.example".to_owned()]);
        let asked = |host: &str| gate.admit(Some(host), &Method::GET, "/events");
        for host in [
            "beats.example",
            "Beats.Example:8443",
            "localhost:9000",
            "127.0.0.1",
            "[::1]:80",
            "[::1]",
        ] {
            assert_eq!(asked(host), Ok("/events"), "{host}");
        }
        for host in [
            "evil.example",
            "beats.example.evil.example",
            "evil.example:beats.example",
            "beats.example:80:90",
            "10.0.0.1:8080",
            "",
        ] {
            assert_eq!(asked(host), Err(Refusal::Host), "{host}");
        }
        assert_eq!(gate.admit(None, &Method::GET, "/"), Err(Refusal::Host));
        let post = gate.admit(Some("beats.example"), &Method::POST, "/events");
        assert_eq!(post, Err(Refusal::Method));
    }
}
