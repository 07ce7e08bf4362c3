//! Tests of what a builder accepts.

use super::*;
use crate::gateway::{GATEWAY_TOKEN_FILE_VARIABLE, GATEWAY_VARIABLE};

fn build(builder: Builder, environment: &[(&str, &str)]) -> Result<Service, Error> {
    builder.build_with(|wanted| {
        let found = environment.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn greeter() -> Builder {
    Service::builder("greeter")
}

fn error(builder: Builder, environment: &[(&str, &str)]) -> String {
    build(builder, environment).err().expect("refused").to_string()
}

#[test]
fn what_the_code_says_beats_the_environment() {
    let environment =
        [(TTL_VARIABLE, "1m"), (INTERVAL_VARIABLE, "40s"), ("POD_NAME", "greeter-7f9c")];
    let service = build(greeter(), &environment).expect("a service");
    let (ttl, interval) = (Duration::from_secs(60), Duration::from_secs(40));
    assert_eq!(
        service.options,
        BeatOptions { ttl: Some(ttl), interval: Some(interval), ..BeatOptions::default() }
    );
    assert_eq!(service.identity.home, Location::Pod("greeter-7f9c".to_owned()));
    assert_eq!(service.identity.instance, "greeter-7f9c");
    let (ttl, interval) = (Duration::from_secs(30), Duration::from_secs(20));
    let builder = greeter().register_ttl(ttl).register_interval(interval).instance("a").pod("");
    let service = build(builder, &environment).expect("a service");
    assert_eq!(
        service.options,
        BeatOptions { ttl: Some(ttl), interval: Some(interval), ..BeatOptions::default() }
    );
    assert_eq!(service.identity.home, Location::Outside(vec![]));
    assert_eq!(service.identity.instance, "a");
}

#[test]
fn outside_a_pod_the_instance_is_the_host() {
    let address = "192.0.2.1".parse().expect("an address");
    let service = build(greeter().address(address), &[]).expect("a service");
    assert_eq!(service.identity.instance, names::hostname());
    assert_eq!(service.identity.home, Location::Outside(vec![address]));
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let address = "192.0.2.1".parse().expect("an address");
    for (builder, message) in [
        (greeter().pod("p").address(address), "leave out the addresses"),
        (greeter().instance("VM_1"), "such as vm-1"),
        (Service::builder("a.b"), "such as greeter"),
        (greeter().metadata("a/b", "1"), "such as shelf"),
        (greeter().register_interval(Duration::from_millis(1)), "register_interval 1ms"),
        (greeter().check_interval(Duration::ZERO), "check_interval 0s is too short"),
    ] {
        let error = error(builder, &[]);
        assert!(error.contains(message), "{error}");
    }
    let error = error(greeter(), &[(TTL_VARIABLE, "1.5s")]);
    assert!(error.starts_with("$BEATKEEPER_REGISTER_TTL: \"1.5s\" is not a duration"), "{error}");
}

#[test]
fn an_interval_of_zero_is_no_renewal() {
    let service = build(greeter().register_interval(Duration::ZERO), &[]).expect("a service");
    assert_eq!(service.options.interval, Some(Duration::ZERO));
}

#[test]
fn what_is_wrong_with_a_gateway_is_told_in_the_words_of_the_sdk() {
    let url = "https://gateway:8443";
    let names = "gateway ($BEATKEEPER_GATEWAY) needs gateway_ca_file ($BEATKEEPER_GATEWAY_CA_FILE)";
    for told in [
        error(greeter().gateway(url), &[]),
        error(greeter(), &[(GATEWAY_VARIABLE, url), (GATEWAY_TOKEN_FILE_VARIABLE, "/token")]),
    ] {
        assert!(told.starts_with(names), "{told}");
    }
    let alone = error(greeter(), &[(GATEWAY_TOKEN_FILE_VARIABLE, "/token")]);
    let starts = "gateway_token_file ($BEATKEEPER_GATEWAY_TOKEN_FILE) has no effect without \
                  gateway ($BEATKEEPER_GATEWAY): name the gateway";
    assert!(alone.starts_with(starts), "{alone}");
    let alone = error(greeter().gateway_ca_file("/ca.crt"), &[]);
    assert!(alone.starts_with("gateway_ca_file ($BEATKEEPER_GATEWAY_CA_FILE) has"), "{alone}");
}
