//! The mistakes that people make in a spec, and the messages that they get.

use serde_json::{Value, json};

const TTL: &str = "ttl must be a duration from 1s to 24h in whole numbers with the units h, m, s or ms, such as 30s or 1m30s";
const INTERVAL: &str = "interval must be a duration from 100ms up in whole numbers with the units h, m, s or ms, such as 10s or 1500ms";
const NOT_AN_ADDRESS: &str = "spec.instances[0].addresses[0]: … this must be one IP address at which other machines reach the instance, such as 192.0.2.10";
const NOT_CANONICAL: &str = "spec.instances[0].addresses[0]: … an IPv6 address must be in its canonical form (RFC 5952), such as 2001:db8::1";
const NOT_REACHABLE: &str = "spec.instances[0].addresses[0]: … an unspecified, loopback, link-local, multicast or broadcast address cannot be published";
const ONE_OF_EACH: &str =
    "spec.instances[0].addresses: … addresses can hold one IPv4 and one IPv6 address";
const PORT_NAMES: &str =
    "spec.ports: … if there are several ports, each needs a name of its own, such as name: http";
const TARGET_PORT: &str = "spec.ports[0].targetPort: … targetPort must be a number from 1 to 65535 without quotes, or the name of a container port: at most 15 lower-case letters, digits and '-', such as http";
const INSTANCE_NAME: &str = "spec.instances[0].name: … an instance's name must be at most 189 lower-case letters, digits, '-' and '.'";
const SELECTOR: &str = "spec.podSelector.matchExpressions[0]: … values must be given for the operators In and NotIn, such as {key: app, operator: In, values: [greeter]}";

type Mistake = (&'static str, Value, &'static [&'static str]);

fn with(key: &str, value: Value) -> Value {
    let mut spec = json!({ "ports": [{ "port": 80 }] });
    spec[key] = value;
    spec
}

fn port(key: &str, value: Value) -> Value {
    let mut port = json!({ "port": 80 });
    port[key] = value;
    json!({ "ports": [port] })
}

fn instance(key: &str, value: Value) -> Value {
    let mut instance = json!({ "name": "vm-1", "addresses": ["192.0.2.10"] });
    instance[key] = value;
    with("instances", json!([instance]))
}

fn address(address: &str) -> Value {
    instance("addresses", json!([address]))
}

fn expression(expression: Value) -> Value {
    with("podSelector", json!({ "matchExpressions": [expression] }))
}

/// The mistake, the spec, and each error as parts of `field: message` with ` … ` between them.
pub fn in_specs() -> Vec<Mistake> {
    let parts = [
        ttls(),
        intervals(),
        ports(),
        target_ports(),
        single_addresses(),
        addresses(),
        instances(),
        others(),
    ];
    parts.into_iter().flatten().collect()
}

/// Mistakes in the ttl.
fn ttls() -> Vec<Mistake> {
    vec![
        (
            "ttl zero",
            with("ttl", json!("0s")),
            &["spec.ttl: … \"0s\": … whole numbers with the units"],
        ),
        ("ttl negative", with("ttl", json!("-30s")), &[TTL]),
        ("ttl decimal", with("ttl", json!("1.5s")), &[TTL]),
        ("ttl in days", with("ttl", json!("1d")), &[TTL]),
        ("ttl with a space", with("ttl", json!("30 s")), &[TTL]),
        ("ttl above a day", with("ttl", json!("25h")), &[TTL]),
        ("ttl absurd", with("ttl", json!("99999h")), &[TTL]),
        ("ttl empty", with("ttl", json!("")), &[TTL]),
        ("ttl below a second", with("ttl", json!("500ms")), &[TTL]),
        ("ttl without unit", with("ttl", json!("90")), &[TTL]),
        ("ttl a number", with("ttl", json!(90)), &["spec.ttl: … must be of type string"]),
        (
            "ttl endless",
            with("ttl", json!("1".repeat(33))),
            &["spec.ttl: Too long: may not be more than 32 bytes"],
        ),
    ]
}

/// Mistakes in the interval.
fn intervals() -> Vec<Mistake> {
    vec![
        (
            "interval equal to the ttl",
            with("interval", json!("90s")),
            &[
                "spec.interval: … interval 90s must be shorter than ttl 90s, and should be at most a third of it, such as interval: 30s with ttl: 90s",
            ],
        ),
        (
            "interval above the ttl",
            with("interval", json!("2m")),
            &["interval 2m must be shorter than ttl 90s"],
        ),
        (
            "interval absurd",
            with("interval", json!("25h")),
            &["interval 25h must be shorter than ttl 90s"],
        ),
        (
            "ttl below the default interval",
            with("ttl", json!("20s")),
            &["interval 30s must be shorter than ttl 20s"],
        ),
        ("interval zero", with("interval", json!("0s")), &["spec.interval: … from 100ms up"]),
        ("interval negative", with("interval", json!("-5s")), &[INTERVAL]),
        ("interval decimal", with("interval", json!("1.5s")), &[INTERVAL]),
        ("interval in days", with("interval", json!("1d")), &[INTERVAL]),
        ("interval empty", with("interval", json!("")), &[INTERVAL]),
        ("interval too short", with("interval", json!("99ms")), &[INTERVAL]),
    ]
}

/// Mistakes in the list of ports.
fn ports() -> Vec<Mistake> {
    let two = |a: Value, b: Value| json!({ "ports": [a, b] });
    vec![
        ("no ports", json!({}), &["spec.ports: Required value"]),
        (
            "empty ports",
            json!({ "ports": [] }),
            &[
                "spec.ports: … give at least one port, such as {name: http, port: 80, targetPort: 8080}",
            ],
        ),
        (
            "a port name twice",
            two(json!({ "name": "a", "port": 80 }), json!({ "name": "a", "port": 81 })),
            &["spec.ports[1]: Duplicate value: {\"name\":\"a\"}"],
        ),
        // The first error comes from the list's key and cannot be suppressed. The second one says
        // what to do.
        (
            "two unnamed ports",
            two(json!({ "port": 80 }), json!({ "port": 81 })),
            &["spec.ports[1]: Duplicate value: {\"name\":\"\"}", PORT_NAMES],
        ),
        (
            "one unnamed of two",
            two(json!({ "port": 80 }), json!({ "name": "a", "port": 81 })),
            &[PORT_NAMES],
        ),
        (
            "a port number twice",
            two(json!({ "name": "a", "port": 80 }), json!({ "name": "b", "port": 80 })),
            &["spec.ports: … a Service can have each port number once for each protocol"],
        ),
        ("port 0", port("port", json!(0)), &["spec.ports[0].port: … greater than or equal to 1"]),
        (
            "port 65536",
            port("port", json!(65536)),
            &["spec.ports[0].port: … less than or equal to 65535"],
        ),
    ]
}

/// Mistakes in one port.
fn target_ports() -> Vec<Mistake> {
    vec![
        ("targetPort 0", port("targetPort", json!(0)), &[TARGET_PORT]),
        ("targetPort 65536", port("targetPort", json!(65536)), &[TARGET_PORT]),
        ("targetPort quoted", port("targetPort", json!("8080")), &[TARGET_PORT]),
        ("targetPort upper case", port("targetPort", json!("Http")), &[TARGET_PORT]),
        ("targetPort with two dashes", port("targetPort", json!("a--b")), &[TARGET_PORT]),
        (
            "targetPort too long",
            port("targetPort", json!("a".repeat(16))),
            &["spec.ports[0].targetPort: Too long: may not be more than 15 bytes"],
        ),
        (
            "protocol lower case",
            port("protocol", json!("tcp")),
            &[
                "spec.ports[0].protocol: Unsupported value: \"tcp\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
            ],
        ),
        (
            "appProtocol with a space",
            port("appProtocol", json!("grpc web")),
            &["spec.ports[0].appProtocol: … such as https or kubernetes.io/h2c"],
        ),
        (
            "port name upper case",
            port("name", json!("HTTP")),
            &[
                "spec.ports[0].name: … a port's name must be a DNS label: at most 63 lower-case letters, digits and '-', such as grpc",
            ],
        ),
        (
            "port name too long",
            port("name", json!("a".repeat(64))),
            &["spec.ports[0].name: Too long: may not be more than 63 bytes"],
        ),
    ]
}

/// Texts that are no address of an instance.
fn single_addresses() -> Vec<Mistake> {
    vec![
        ("a host name", address("vm.example.com"), &[NOT_AN_ADDRESS]),
        ("a leading zero", address("192.0.2.010"), &[NOT_AN_ADDRESS]),
        ("a range", address("192.0.2.0/24"), &[NOT_AN_ADDRESS]),
        ("with a port", address("192.0.2.10:80"), &[NOT_AN_ADDRESS]),
        ("a zone", address("fe80::1%eth0"), &[NOT_AN_ADDRESS]),
        ("IPv4-mapped", address("::ffff:192.0.2.1"), &[NOT_AN_ADDRESS]),
        ("empty address", address(""), &[NOT_AN_ADDRESS]),
        ("IPv6 upper case", address("2001:DB8::1"), &[NOT_CANONICAL]),
        ("IPv6 with zeros", address("2001:db8:0:0::1"), &[NOT_CANONICAL]),
        ("loopback v4", address("127.0.0.1"), &[NOT_REACHABLE]),
        ("loopback v6", address("::1"), &[NOT_REACHABLE]),
        ("link-local v4, metadata", address("169.254.169.254"), &[NOT_REACHABLE]),
        ("link-local v6", address("fe80::1"), &[NOT_REACHABLE]),
        ("unspecified v4", address("0.0.0.0"), &[NOT_REACHABLE]),
        ("unspecified v6", address("::"), &[NOT_REACHABLE]),
        ("multicast v4", address("239.1.1.1"), &[NOT_REACHABLE]),
        ("link-local multicast v4", address("224.0.0.1"), &[NOT_REACHABLE]),
        ("multicast v6", address("ff0e::1"), &[NOT_REACHABLE]),
        ("broadcast", address("255.255.255.255"), &[NOT_REACHABLE]),
    ]
}

/// Mistakes in the list of addresses.
fn addresses() -> Vec<Mistake> {
    vec![
        (
            "no address",
            instance("addresses", json!([])),
            &["spec.instances[0].addresses: … give at least one address, such as [192.0.2.10]"],
        ),
        ("two of IPv4", instance("addresses", json!(["192.0.2.1", "192.0.2.2"])), &[ONE_OF_EACH]),
        (
            "two of IPv6",
            instance("addresses", json!(["2001:db8::1", "2001:db8::2"])),
            &[ONE_OF_EACH],
        ),
        (
            "one address twice",
            instance("addresses", json!(["192.0.2.1", "192.0.2.1"])),
            &["spec.instances[0].addresses[1]: Duplicate value: \"192.0.2.1\""],
        ),
        (
            "three addresses",
            instance("addresses", json!(["192.0.2.1", "2001:db8::1", "192.0.2.2"])),
            &["spec.instances[0].addresses: Too many: 3: must have at most 2 items"],
        ),
    ]
}

/// Mistakes in an instance.
fn instances() -> Vec<Mistake> {
    let many: Vec<_> = (0..1001)
        .map(|number| json!({ "name": format!("vm-{number}"), "addresses": ["192.0.2.1"] }))
        .collect();
    vec![
        ("instance without name", instance("name", json!("")), &[INSTANCE_NAME]),
        ("instance name upper case", instance("name", json!("VM-1")), &[INSTANCE_NAME]),
        ("instance name with an underscore", instance("name", json!("vm_1")), &[INSTANCE_NAME]),
        ("instance name with an empty label", instance("name", json!("vm..1")), &[INSTANCE_NAME]),
        (
            "instance name too long",
            instance("name", json!("a".repeat(190))),
            &["spec.instances[0].name: Too long: may not be more than 189 bytes"],
        ),
        (
            "instance port 0",
            instance("ports", json!([{ "port": 0 }])),
            &["spec.instances[0].ports[0].port: … greater than or equal to 1"],
        ),
        (
            "instance port 65536",
            instance("ports", json!([{ "port": 65536 }])),
            &["spec.instances[0].ports[0].port: … less than or equal to 65535"],
        ),
        (
            "zone too long",
            instance("zone", json!("a".repeat(254))),
            &["spec.instances[0].zone: Too long: may not be more than 253 bytes"],
        ),
        (
            "an instance name twice",
            with("instances", json!([many[0], many[0]])),
            &["spec.instances[1]: Duplicate value: {\"name\":\"vm-0\"}"],
        ),
        (
            "1001 instances",
            with("instances", json!(many)),
            &["spec.instances: Too many: 1001: must have at most 1000 items"],
        ),
    ]
}

/// Other mistakes.
fn others() -> Vec<Mistake> {
    vec![
        (
            "minReady negative",
            with("protection", json!({ "minReady": -1 })),
            &["spec.protection.minReady: … greater than or equal to 0"],
        ),
        (
            "minReady absurd",
            with("protection", json!({ "minReady": 10001 })),
            &["spec.protection.minReady: … less than or equal to 10000"],
        ),
        (
            "serviceName with a dot",
            with("serviceName", json!("greeter.shop")),
            &[
                "spec.serviceName: … serviceName must be a Service name: at most 63 lower-case letters, digits and '-', such as greeter",
            ],
        ),
        (
            "serviceName empty",
            with("serviceName", json!("")),
            &["spec.serviceName: … serviceName must be a Service name"],
        ),
        (
            "serviceName too long",
            with("serviceName", json!("a".repeat(64))),
            &["spec.serviceName: Too long: may not be more than 63 bytes"],
        ),
        (
            "an unknown operator",
            expression(json!({ "key": "app", "operator": "Is" })),
            &["spec.podSelector.matchExpressions[0].operator: Unsupported value: \"Is\""],
        ),
        ("In without values", expression(json!({ "key": "app", "operator": "In" })), &[SELECTOR]),
        (
            "Exists with values",
            expression(json!({ "key": "app", "operator": "Exists", "values": ["a"] })),
            &[SELECTOR],
        ),
    ]
}
