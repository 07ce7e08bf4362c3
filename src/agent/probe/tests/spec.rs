use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

use super::super::spec::{Check, Exec, Grpc, Http, Probe, Target, Timing};
use super::*;

fn read(yaml: &str) -> Result<Probe, String> {
    serde_saphyr::from_str(yaml).map_err(|error| error.to_string())
}

fn refused(yaml: &str) -> String {
    match serde_json::from_value::<Probe>(serde_saphyr::from_str(yaml).expect("YAML")) {
        Ok(probe) => panic!("{yaml} is taken for {probe:?}"),
        Err(error) => error.to_string(),
    }
}

fn target(host: &str, port: u16) -> Target {
    Target { host: host.to_owned(), port }
}

#[test]
fn what_is_left_out_is_as_the_kubelet_has_it() {
    let probe = read("httpGet:\n  port: 8080\n").expect("a probe");
    assert_eq!(probe, "http://127.0.0.1:8080/".parse().expect("a probe"));
    let timing = Timing {
        initial_delay: Duration::ZERO,
        timeout: Duration::from_secs(1),
        period: Duration::from_secs(10),
        success_threshold: 1,
        failure_threshold: 3,
    };
    assert_eq!(probe.timing, timing);
    let grpc = read("grpc: { port: 9000 }").expect("a probe").check;
    assert_eq!(
        grpc,
        Check::Grpc(Grpc { target: target("127.0.0.1", 9000), service: String::new() })
    );
}

#[test]
fn a_probe_as_the_kubelet_reads_it_says_the_same_here() {
    let theirs = core::Probe {
        http_get: Some(core::HTTPGetAction {
            host: Some("::1".to_owned()),
            http_headers: Some(vec![core::HTTPHeader { name: "X-A".into(), value: "1".into() }]),
            path: Some("healthz?deep".to_owned()),
            port: IntOrString::Int(8443),
            scheme: Some("HTTPS".to_owned()),
        }),
        initial_delay_seconds: Some(5),
        timeout_seconds: Some(2),
        period_seconds: Some(3),
        success_threshold: Some(4),
        failure_threshold: Some(6),
        ..core::Probe::default()
    };
    let probe = read(&serde_json::to_string(&theirs).expect("JSON")).expect("a probe");
    let timing = Timing {
        initial_delay: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        period: Duration::from_secs(3),
        success_threshold: 4,
        failure_threshold: 6,
    };
    assert_eq!(probe.timing, timing);
    let Check::Http(Http { url, headers }) = probe.check else { panic!("{probe:?}") };
    assert_eq!(url.to_string(), "https://[::1]:8443/healthz?deep");
    assert_eq!(headers["x-a"], "1");

    let theirs = core::Probe {
        tcp_socket: Some(core::TCPSocketAction { host: None, port: IntOrString::Int(5432) }),
        ..core::Probe::default()
    };
    let probe = read(&serde_json::to_string(&theirs).expect("JSON"));
    assert_eq!(probe.map(|probe| probe.check), Ok(Check::Tcp(target("127.0.0.1", 5432))));

    let theirs = core::Probe {
        grpc: Some(core::GRPCAction { port: 9000, service: Some("a.B".to_owned()) }),
        ..core::Probe::default()
    };
    let probe = read(&serde_json::to_string(&theirs).expect("JSON"));
    assert_eq!(probe, Ok("grpc://:9000/a.B".parse().expect("a probe")));

    let command = ["pg_isready", "-q"].map(str::to_owned).to_vec();
    let theirs = core::Probe {
        exec: Some(core::ExecAction { command: Some(command) }),
        ..core::Probe::default()
    };
    let probe = read(&serde_json::to_string(&theirs).expect("JSON"));
    assert_eq!(probe, Ok("exec:pg_isready -q".parse().expect("a probe")));
}

#[test]
fn what_does_not_do_is_named_with_its_field_and_what_to_write() {
    for (yaml, error) in [
        ("{}", "probe: says nothing to check: choose one of httpGet, tcpSocket, grpc and exec"),
        (
            "{ tcpSocket: { port: 1 }, exec: { command: [] } }",
            "probe: checks more than one thing: choose one of httpGet, tcpSocket, grpc and exec",
        ),
        ("httpGet: { port: 70000 }", "probe.httpGet.port: 70000 is not a port: choose 1 to 65535"),
        ("tcpSocket: {}", "probe.tcpSocket.port: is missing: choose 1 to 65535"),
        ("grpc: { port: web }", "probe.grpc.port: \"web\" is not a port: choose 1 to 65535"),
        (
            "httpGet: { port: 1, scheme: https }",
            "probe.httpGet.scheme: \"https\" is no scheme: choose HTTP or HTTPS",
        ),
        (
            "httpGet: { port: 1, path: /a b }",
            "probe.httpGet.path: \"/a b\" is not a path: encode what no URL may hold, as in \
             /is%20ready",
        ),
        (
            "tcpSocket: { port: 1, host: 'http://db' }",
            "probe.tcpSocket.host: \"http://db\" is not a host: choose a name or an IP address, \
             such as 127.0.0.1",
        ),
        (
            "httpGet: { port: 1, httpHeaders: [{ name: a, value: b }, { name: 'a:', value: b }] }",
            "probe.httpGet.httpHeaders[1].name: \"a:\" is no name of a header: choose one such as \
             X-Probe",
        ),
        (
            "httpGet: { port: 1, httpHeaders: [{ name: Content-Length, value: '9' }] }",
            "probe.httpGet.httpHeaders[0].name: content-length is set by the connection: leave it \
             out",
        ),
        (
            "httpGet: { port: 1, httpHeaders: [{ name: a, value: \"b\\nc\" }] }",
            "probe.httpGet.httpHeaders[0].value: has control characters: leave them out",
        ),
        (
            "exec: { command: [] }",
            "probe.exec.command: names no program: choose one such as pg_isready",
        ),
        (
            "{ tcpSocket: { port: 1 }, periodSeconds: 0 }",
            "probe.periodSeconds: 0 is out of range: choose 1 to 2147483647, or leave it out",
        ),
        (
            "{ tcpSocket: { port: 1 }, initialDelaySeconds: -1 }",
            "probe.initialDelaySeconds: -1 is out of range: choose 0 to 2147483647, or leave it out",
        ),
    ] {
        assert_eq!(refused(yaml), error, "{yaml}");
    }
}

#[test]
fn unknown_fields_are_refused_at_every_level() {
    for (yaml, field) in [
        ("{ tcpSocket: { port: 1 }, periodSecond: 1 }", "periodSecond"),
        ("{ tcpSocket: { port: 1 }, terminationGracePeriodSeconds: 1 }", "terminationGrace"),
        ("httpGet: { port: 1, headers: [] }", "headers"),
        ("httpGet: { port: 1, httpHeaders: [{ name: a, value: b, x: y }] }", "x"),
        ("tcpSocket: { port: 1, path: / }", "path"),
        ("grpc: { port: 1, tls: true }", "tls"),
        ("exec: { command: [a], shell: true }", "shell"),
    ] {
        let error = refused(yaml);
        assert!(error.contains(&format!("unknown field `{field}")), "{error}");
    }
}

#[test]
fn short_texts_are_read() {
    for (text, long) in [
        ("http://:8080/healthz", "http://127.0.0.1:8080/healthz"),
        ("http://app:8080", "http://app:8080/"),
        ("http://app:8080?a=b", "http://app:8080/?a=b"),
        ("https://[::1]:8443/", "https://[::1]:8443/"),
        ("tcp://:5432/", "tcp://127.0.0.1:5432"),
        ("grpc://:9000", "grpc://127.0.0.1:9000/"),
        ("grpc://:9000/my.Service", "grpc://127.0.0.1:9000/my.Service"),
        ("exec:  sh -c 'exit  1'", "exec:sh -c 'exit  1'"),
    ] {
        let check: Check = text.parse().expect(text);
        assert_eq!(check.to_string(), long);
    }
}

#[test]
fn a_short_text_that_does_not_do_says_what_would() {
    let forms = "is not a probe: choose http://:8080/healthz";
    for (text, error) in [
        ("", forms),
        (":8080", forms),
        ("udp://:53", forms),
        ("HTTP://:80", forms),
        ("http://host/", "\"host\" has no port: write one behind a colon, such as :8080"),
        ("http://[::1]/", "\"[::1]\" has no port"),
        ("http://::1:80/", "\"::1:80\" is ambiguous: write an IPv6 address in brackets"),
        ("http://[host]:80/", "is ambiguous"),
        ("http://host:/", "\"\" is not a port: choose 1 to 65535"),
        ("http://host:+80/", "\"+80\" is not a port"),
        ("http://host:0/", "0 is not a port: choose 1 to 65535"),
        ("http://me:pw@host:80/", "is ambiguous"),
        ("http://me@host:80/", "\"me@host\" is not a host"),
        ("http://host:80/a b", "\"/a b\" is not a path"),
        ("http://host:80/#top", "\"/#top\" is not a path"),
        ("tcp://:5432/db", "is more than tcp can ask for: end it after the port"),
        ("exec:", "names no program"),
        ("exec:sh -c 'exit", "has a quote that does not end: close it"),
    ] {
        let problem = text.parse::<Check>().expect_err(text).to_string();
        assert!(problem.contains(error), "{text}: {problem}");
    }
}

#[test]
fn a_subject_names_the_target_and_none_of_its_secrets() {
    for (text, subject) in [
        ("https://app:8443/ready?token=secret", "https probe of app:8443/ready"),
        ("grpc://:9000/a.B", "grpc probe of 127.0.0.1:9000/a.B"),
        ("exec:pg_isready --password secret", "exec probe pg_isready"),
    ] {
        assert_eq!(text.parse::<Check>().expect(text).subject(), subject);
    }
}

fn targets() -> impl Strategy<Value = Target> {
    let name = "[a-zA-Z0-9][a-zA-Z0-9._-]{0,30}";
    let v6 = any::<std::net::Ipv6Addr>().prop_map(|address| address.to_string());
    (prop_oneof![name, v6], 1..=u16::MAX).prop_map(|(host, port)| Target { host, port })
}

fn checks() -> impl Strategy<Value = Check> {
    let word = "[^\0]{0,12}";
    prop_oneof![
        targets().prop_map(Check::Tcp),
        (targets(), any::<String>())
            .prop_map(|(target, service)| Check::Grpc(Grpc { target, service })),
        ("[^\0]{1,12}", prop::collection::vec(word, 0..4))
            .prop_map(|(program, args)| Check::Exec(Exec { program, args })),
        (targets(), "https?", "/[a-z0-9/%._~-]{0,20}(\\?[a-z0-9=&]{0,9})?").prop_map(
            |(target, scheme, path)| format!("{scheme}://{target}{path}").parse().expect("a page")
        ),
    ]
}

proptest! {
    #[test]
    fn a_check_that_is_written_short_reads_back_as_itself(check in checks()) {
        prop_assert_eq!(check.to_string().parse(), Ok(check));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,60}", kind in "(https?|tcp|grpc)://|exec:|") {
        let _ = format!("{kind}{text}").parse::<Check>();
    }
}
