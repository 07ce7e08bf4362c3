//! What is read of the Lease of a gateway.

use beatkeeper_api::gateway::{CERTIFICATE_ANNOTATION, GATEWAY_LEASE_PREFIX, Lifetime};
use beatkeeper_core::objects::decode::{
    Decode,
    Keep::{self, All, Entries, Fields},
    Lenient,
};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{
    beat::Beat,
    lease::{RENEWALS, written},
};

/// A gateway, by its Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenGateway {
    /// The name of its Pod.
    pub name: String,
    /// The uid of its Pod.
    pub pod: String,
    /// When it renewed the Lease last, by the clock of the API server; `None` if never.
    pub renewed: Option<Timestamp>,
    /// When the Lease was created.
    pub created: Option<Timestamp>,
    /// How long the certificate lasts that expires first; `None` if the Lease does not tell.
    pub certificate: Option<Lifetime>,
}

impl Decode for SeenGateway {
    const KIND: &'static str = "Lease";
    const KEEP: Keep = Fields(&[
        (
            "metadata",
            Fields(&[
                ("name", All),
                ("namespace", All),
                ("annotations", Entries(|name| name == CERTIFICATE_ANNOTATION)),
                ("creationTimestamp", All),
                ("managedFields", RENEWALS),
            ]),
        ),
        ("spec", Fields(&[("holderIdentity", All), ("renewTime", All)])),
    ]);

    fn of(kept: &Value) -> Result<Self, serde_json::Error> {
        let (metadata, spec) = (&kept["metadata"], &kept["spec"]);
        let name = metadata["name"].as_str().unwrap_or_default();
        let renewed = spec["renewTime"].as_str();
        let beat = renewed.and_then(|text| Beat::of(text.parse().ok(), written(kept)));
        let certificate = metadata["annotations"][CERTIFICATE_ANNOTATION].as_str();
        Ok(Self {
            name: name.strip_prefix(GATEWAY_LEASE_PREFIX).unwrap_or(name).to_owned(),
            pod: spec["holderIdentity"].as_str().unwrap_or_default().to_owned(),
            renewed: beat.map(|beat| beat.at),
            created: metadata["creationTimestamp"].as_str().and_then(|text| text.parse().ok()),
            certificate: certificate.and_then(|text| text.parse().ok()),
        })
    }
}

impl<'de> Deserialize<'de> for SeenGateway {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Lenient::deserialize(deserializer).map(|Lenient(gateway)| gateway)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beatkeeper_core::objects::decode;
    use serde_json::json;

    fn read(value: &Value) -> SeenGateway {
        decode::read(value.to_string().as_bytes()).unwrap()
    }

    fn lease() -> Value {
        let lifetime = "2026-01-01T00:00:00Z/2028-12-31T00:00:00Z";
        json!({
            "metadata": {
                "name": "beatkeeper-gateway-edge-0", "namespace": "beatkeeper",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": { "beatkeeper.dev/certificate": lifetime },
                "managedFields": [{
                    "manager": "gateway", "time": "2026-01-01T00:00:05Z",
                    "fieldsV1": { "f:spec": { "f:renewTime": {} } },
                }],
            },
            "spec": { "holderIdentity": "uid", "renewTime": "2026-01-01T00:00:05.250000Z" },
        })
    }

    #[test]
    fn a_lease_tells_its_pod_its_last_renewal_and_how_long_its_certificate_lasts() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let gateway = read(&lease());
        assert_eq!((&*gateway.name, &*gateway.pod), ("edge-0", "uid"));
        assert_eq!(gateway.renewed, Some(at("2026-01-01T00:00:05.25Z")));
        assert_eq!(gateway.created, Some(at("2026-01-01T00:00:00Z")));
        assert_eq!(gateway.certificate.unwrap().until, at("2028-12-31T00:00:00Z"));
    }

    #[test]
    fn a_clock_of_a_gateway_that_is_wrong_does_not_count() {
        let mut lease = lease();
        lease["spec"]["renewTime"] = "2026-01-01T09:00:00.000000Z".into();
        assert_eq!(read(&lease).renewed, Some("2026-01-01T00:00:05Z".parse().unwrap()));
    }

    #[test]
    fn what_a_lease_does_not_tell_is_none() {
        let gateway = read(&json!({ "metadata": { "name": "another" } }));
        assert_eq!((&*gateway.name, &*gateway.pod), ("another", ""));
        assert_eq!((gateway.renewed, gateway.certificate), (None, None));
    }
}
