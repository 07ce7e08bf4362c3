//! The way that beats take: `spec.carrier`.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// The way that beats take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Carrier {
    /// Each beat renews the Lease of the instance, through the API server.
    #[default]
    Lease,
    /// Beats go to a gateway, which hands them to the operator. They are written to no Lease.
    Gateway,
}

impl Carrier {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Lease, Self::Gateway];

    /// As the field has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "Lease",
            Self::Gateway => "Gateway",
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no carrier, as a later version may have more, is read as [`Carrier::Lease`]: this way always counts.
impl<'de> Deserialize<'de> for Carrier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self::ALL.into_iter().find(|carrier| carrier.as_str() == text).unwrap_or_default())
    }
}

/// Without the descriptions of the values, which would make a list of schemas.
impl JsonSchema for Carrier {
    fn schema_name() -> Cow<'static, str> {
        "Carrier".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": Self::ALL.map(Self::as_str) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ServiceRegistrationSpec;

    fn read(spec: serde_json::Value) -> Carrier {
        serde_json::from_value::<ServiceRegistrationSpec>(spec).unwrap().carrier
    }

    #[test]
    fn beats_are_lease_writes_unless_the_registration_says_gateway() {
        assert_eq!(read(json!({})), Carrier::Lease);
        for carrier in Carrier::ALL {
            assert_eq!(read(json!({ "carrier": carrier })), carrier);
        }
        assert_eq!(read(json!({ "carrier": "Pigeon" })), Carrier::Lease);
    }
}
