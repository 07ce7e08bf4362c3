//! The rules that the API server checks (CEL), each with the message that a user reads.
//!
//! One mistake is told once: what a rule checks is not checked by a `pattern` too, and a rule that
//! compares two fields holds back while one of them is malformed. Every text and list has a greatest
//! length, because the API server estimates the cost of a rule from it and refuses a CRD that could
//! get expensive.

use kube::core::{Message, Rule};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::duration::PATTERN as DURATION;

const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
const SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// The longest text of an IP address.
const ADDRESS_MAX: u32 = 45;
/// Most expressions and most values of each in a podSelector.
const EXPRESSIONS_MAX: u32 = 32;

/// A label's value and a Service's name have to hold it. That it is a DNS subdomain the API server
/// checks of every name, so this leaves that to it.
///
/// Asked at creation alone. The API server forgives an old violation where the part of the object
/// that a rule looks at is unchanged, but this one looks at the root, which every status write
/// changes: a name from before the rule would make its status unwritable.
pub(crate) fn registration_name() -> Rule {
    Rule::new("oldSelf.hasValue() || (size(self.metadata.name) <= 63 && !self.metadata.name.contains('.'))")
        .optional_old_self(true)
        .message("metadata.name must have at most 63 characters and no dots, such as greeter")
}

/// Compares what is in force, so that writing the default out is no change.
pub(crate) fn service_name_is_immutable() -> Rule {
    let effective = |object: &str| {
        format!(
            "(has({object}.spec.serviceName) ? {object}.spec.serviceName : {object}.metadata.name)"
        )
    };
    let (new, old) = (effective("self"), effective("oldSelf"));
    Rule::new(format!("{new} == {old}"))
        .message(Message::Expression(format!(
            "'serviceName is immutable and was ' + {old} + ': create a second ServiceRegistration for ' + {new} + ', and delete this one when its clients have moved'"
        )))
        .field_path(".spec.serviceName")
}

pub(crate) fn service_name() -> Rule {
    Rule::new(format!("self.matches('{LABEL}')"))
        .message("serviceName must be a Service name: at most 63 lower-case letters, digits and '-', such as greeter")
}

pub(crate) fn ttl() -> Rule {
    Rule::new(format!(
        "self.matches('{DURATION}') && duration(self) >= duration('1s') && duration(self) <= duration('24h')"
    ))
    .message("ttl must be a duration from 1s to 24h in whole numbers with the units h, m, s or ms, such as 30s or 1m30s")
}

/// Has no upper bound of its own: being shorter than ttl is one.
pub(crate) fn interval() -> Rule {
    Rule::new(format!("self.matches('{DURATION}') && duration(self) >= duration('100ms')"))
        .message("interval must be a duration from 100ms up in whole numbers with the units h, m, s or ms, such as 10s or 1500ms")
}

pub(crate) fn interval_below_ttl() -> Rule {
    Rule::new(format!(
        "!self.ttl.matches('{DURATION}') || duration(self.ttl) < duration('1s') || !self.interval.matches('{DURATION}') || duration(self.interval) < duration(self.ttl)"
    ))
    .message(Message::Expression(
        "'interval ' + self.interval + ' must be shorter than ttl ' + self.ttl + ', and should be at most a third of it, such as interval: 30s with ttl: 90s'".to_owned(),
    ))
    .field_path(".interval")
}

/// In place of minItems, whose message does not say what to write.
pub(crate) fn ports_are_given() -> Rule {
    Rule::new("self.size() > 0")
        .message("give at least one port, such as {name: http, port: 80, targetPort: 8080}")
}

pub(crate) fn ports_have_names() -> Rule {
    Rule::new("self.size() < 2 || self.all(p, p.name != '')")
        .message("if there are several ports, each needs a name of its own, such as name: http")
}

/// As in a Service, which would refuse the second one.
pub(crate) fn ports_are_distinct() -> Rule {
    Rule::new("self.all(a, self.exists_one(b, a.port == b.port && a.protocol == b.protocol))").message(
        "a Service can have each port number once for each protocol: give the second one a different port; both can have the same targetPort",
    )
}

pub(crate) fn port_name() -> Rule {
    Rule::new(format!("self == '' || self.matches('{LABEL}')"))
        .message("a port's name must be a DNS label: at most 63 lower-case letters, digits and '-', such as grpc")
}

/// A name is what a container port can be called (IANA service name): it has a letter, so that it is
/// no number.
pub(crate) fn target_port() -> Rule {
    Rule::new("type(self) == int ? self >= 1 && self <= 65535 : string(self).matches('^[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$') && string(self).matches('[a-z]') && !string(self).contains('--')")
        .message("targetPort must be a number from 1 to 65535 without quotes, or the name of a container port: at most 15 lower-case letters, digits and '-', such as http")
}

pub(crate) fn app_protocol() -> Rule {
    Rule::new("self.matches('^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')")
        .message("appProtocol must be a qualified name of letters, digits, '-', '_' and '.', such as https or kubernetes.io/h2c")
}

pub(crate) fn instance_name() -> Rule {
    Rule::new(format!("self.matches('{SUBDOMAIN}')"))
        .message("an instance's name must be at most 189 lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, such as vm-1")
}

/// The derive puts rules on fields and types only; here the items of a list have one of their own, so
/// that a message names the one address that is wrong.
pub(crate) fn addresses(_: &mut SchemaGenerator) -> Schema {
    let one = Rule::new("isIP(self)").message(
        "this must be one IP address at which other machines reach the instance, such as 192.0.2.10 or 2001:db8::1: no host name, port, range, zone, leading zero or IPv4-mapped address",
    );
    let canonical = Rule::new("!isIP(self) || ip.isCanonical(self)").message(
        "an IPv6 address must be in its canonical form (RFC 5952), such as 2001:db8::1: lower case, no leading zeros, the longest run of zeros as '::'",
    );
    let reachable = Rule::new("!isIP(self) || (ip(self).isGlobalUnicast() && self != '255.255.255.255')").message(
        "an unspecified, loopback, link-local, multicast or broadcast address cannot be published: give the address at which other machines reach the instance, such as 192.0.2.10 or 2001:db8::1",
    );
    let given = Rule::new("self.size() > 0")
        .message("give at least one address, such as [192.0.2.10]: an instance outside the cluster has no other");
    let families = Rule::new(
        "self.size() < 2 || self[0] == self[1] || !isIP(self[0]) || !isIP(self[1]) || ip(self[0]).family() != ip(self[1]).family()",
    )
    .message("addresses can hold one IPv4 and one IPv6 address of the same instance; declare a second instance for a second address of one family");
    json_schema!({
        "type": "array",
        "maxItems": 2,
        "items": {
            "type": "string",
            "maxLength": ADDRESS_MAX,
            "x-kubernetes-validations": [one, canonical, reachable],
        },
        "x-kubernetes-list-type": "set",
        "x-kubernetes-validations": [given, families],
    })
}

/// The standard LabelSelector, with the rules that the API server applies to those of its own kinds.
pub(crate) fn pod_selector(generator: &mut SchemaGenerator) -> Schema {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
    let operator = Rule::new(
        "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 : !has(self.values) || self.values.size() == 0",
    )
    .message("values must be given for the operators In and NotIn, such as {key: app, operator: In, values: [greeter]}, and left out for Exists and DoesNotExist");
    let mut schema = LabelSelector::json_schema(generator);
    let expressions = schema.pointer_mut("/properties/matchExpressions");
    if let Some(Value::Object(expressions)) = expressions {
        expressions.insert("maxItems".to_owned(), json!(EXPRESSIONS_MAX));
        if let Some(Value::Object(items)) = expressions.get_mut("items") {
            items.insert("x-kubernetes-validations".to_owned(), json!([operator]));
        }
    }
    if let Some(Value::Object(operator)) =
        schema.pointer_mut("/properties/matchExpressions/items/properties/operator")
    {
        operator.insert("enum".to_owned(), json!(["In", "NotIn", "Exists", "DoesNotExist"]));
    }
    // As in the API of Kubernetes: a selector is replaced as a whole, never merged with another's.
    schema.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
    schema
}
