//! What a gateway and the operator agree on in Kubernetes objects.

use std::{fmt, str::FromStr};

use jiff::Timestamp;

/// The label of the Lease of a gateway. Its value is the name of the election's Lease of the operator that the gateway
/// belongs to.
pub const GATEWAY_LABEL: &str = "beatkeeper.dev/gateway";

/// What the name of the Lease of a gateway begins with. The name of its Pod follows.
pub const GATEWAY_LEASE_PREFIX: &str = "beatkeeper-gateway-";

/// The annotation of the Lease of a gateway that names the IP address and the port at which it takes streams.
pub const STREAMS_ANNOTATION: &str = "beatkeeper.dev/streams";

/// The annotation of the Lease of a gateway that tells how long its certificates last: the [`Lifetime`] of the one that
/// expires first.
pub const CERTIFICATE_ANNOTATION: &str = "beatkeeper.dev/certificate";

/// The annotation of the election's Lease that lists the gateways with beats that the leader may have acknowledged (G5).
pub const GATEWAYS_ANNOTATION: &str = "beatkeeper.dev/gateways";

/// The annotation of the probe Lease of a replica that knows carriers (G12).
pub const CARRIERS_ANNOTATION: &str = "beatkeeper.dev/carriers";

/// From when until when a certificate counts. As text, two times with a slash between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// The first moment.
    pub from: Timestamp,
    /// The last one.
    pub until: Timestamp,
}

/// The text is no lifetime.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not two times with a slash between them")]
pub struct NoLifetime(String);

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.from, self.until)
    }
}

impl FromStr for Lifetime {
    type Err = NoLifetime;

    fn from_str(text: &str) -> Result<Self, NoLifetime> {
        let times = text.split_once('/');
        let times = times.and_then(|(from, until)| Some((from.parse().ok()?, until.parse().ok()?)));
        let (from, until) = times.ok_or_else(|| NoLifetime(text.to_owned()))?;
        Ok(Self { from, until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_read_as_it_was_written() {
        let text = "2026-01-01T00:00:00Z/2028-12-31T00:00:00Z";
        let lifetime: Lifetime = text.parse().unwrap();
        assert_eq!(lifetime.to_string(), text);
        assert!(lifetime.from < lifetime.until);
        let never = Lifetime { from: Timestamp::MIN, until: Timestamp::MAX };
        assert_eq!(never.to_string().parse::<Lifetime>().unwrap(), never);
    }

    #[test]
    fn a_text_that_is_not_two_times_is_no_lifetime() {
        for text in ["", "/", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z/soon"] {
            let error = text.parse::<Lifetime>().unwrap_err().to_string();
            assert!(error.contains("is not two times"), "{error}");
        }
    }
}
