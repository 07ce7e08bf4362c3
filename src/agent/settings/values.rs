//! How the values of settings are written, in flags and in the file.

use std::{collections::BTreeMap, fmt, time::Duration};

use beatkeeper_api::duration::{self, ParseDurationError};
use beatkeeper_client::{
    gateway::{GatewayUrl, GatewayUrlError},
    schedule::INTERVAL_MIN,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{agent::probe::Probe, bind_address::BindAddress};

/// Why the value of a setting cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ValueError {
    #[error("write it as KEY=VALUE, such as shelf=7")]
    NoPair,
    #[error(transparent)]
    NoDuration(#[from] ParseDurationError),
    #[error("must be {} or more", duration::format(INTERVAL_MIN))]
    IntervalTooShort,
}

pub(super) fn pair(text: &str) -> Result<(String, String), ValueError> {
    let (key, value) = text.split_once('=').ok_or(ValueError::NoPair)?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn interval(text: &str) -> Result<Duration, ValueError> {
    let interval = duration::parse(text)?;
    if interval < INTERVAL_MIN { Err(ValueError::IntervalTooShort) } else { Ok(interval) }
}

pub(super) fn interval_text<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Duration>, D::Error> {
    interval(&String::deserialize(from)?).map(Some).map_err(D::Error::custom)
}

pub(super) fn duration_text<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Duration>, D::Error> {
    duration::parse(&String::deserialize(from)?).map(Some).map_err(D::Error::custom)
}

pub(super) fn pairs<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Vec<(String, String)>>, D::Error> {
    let map = BTreeMap::<String, String>::deserialize(from)?;
    Ok(Some(map.into_iter().collect()))
}

pub(super) fn probes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Probe>>, D::Error> {
    let written = Vec::<Written>::deserialize(from)?;
    Ok(Some(written.into_iter().map(|Written(probe)| probe).collect()))
}

pub(super) fn health_address<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<BindAddress>, D::Error> {
    bind_address("healthBindAddress", from)
}

pub(super) fn metrics_address<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<BindAddress>, D::Error> {
    bind_address("metricsBindAddress", from)
}

fn bind_address<'de, D: Deserializer<'de>>(
    key: &str,
    from: D,
) -> Result<Option<BindAddress>, D::Error> {
    let address = String::deserialize(from)?.parse();
    address.map(Some).map_err(|error| D::Error::custom(format!("{key}: {error}")))
}

pub(super) fn gateway_url(text: &str) -> Result<GatewayUrl, GatewayUrlError> {
    text.parse()
}

pub(super) fn gateways<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Vec<GatewayUrl>>, D::Error> {
    let urls = Vec::<String>::deserialize(from)?;
    let urls = urls.iter().map(|url| gateway_url(url)).collect::<Result<_, _>>();
    urls.map(Some).map_err(|error| D::Error::custom(format!("gateways: {error}")))
}

/// A probe in a file: the short text, or the kubelet's fields.
struct Written(Probe);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text such as http://:8080/healthz, or the kubelet's fields")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Written, E> {
                text.parse().map(Written).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Written, A::Error> {
                Probe::deserialize(MapAccessDeserializer::new(fields)).map(Written)
            }
        }

        from.deserialize_any(Either)
    }
}
