//! What gateways say about the instances of a registration (G3, G4, G5).

use std::{collections::BTreeMap, sync::Arc};

use beatkeeper_api::InstanceState;

use crate::{
    carriers::silence::{Finding, Held},
    decide::verdict::Ruling,
    liveness::index::{CarrierId, Record},
    vocabulary::reason::Reason,
};

/// What the gateways say, at the moment of a decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// The finding on each record, in the order of the records.
    pub of: Vec<Finding>,
    /// The names of the Pods of gateways.
    pub names: BTreeMap<CarrierId, Arc<str>>,
    /// Whether they were asked to prove the time, and have not answered in time.
    pub unanswered: bool,
}

impl Findings {
    /// How a message names the gateway that carried the last beat of an instance.
    pub(super) fn gateway_of(&self, record: &Record) -> Option<String> {
        let name = self.names.get(&record.carrier?);
        Some(
            name.map_or_else(
                || "a gateway that is gone".to_owned(),
                |name| format!("gateway {name}"),
            ),
        )
    }

    /// The ruling on a published instance that gateways hold.
    pub(super) fn held(&self, held: Held, record: &Record) -> Ruling {
        let gateway = self.gateway_of(record).unwrap_or_else(|| "a gateway".to_owned());
        let (reason, why) = match held {
            Held::CarrierIsCutOff => (
                Reason::GatewayCutOff,
                format!(
                    "the stream of {gateway}, which carried its last beat, is broken, and that gateway still renews its \
                     own Lease: look at the network between it and the operator"
                ),
            ),
            Held::NoCarrier => (
                Reason::NoGateway,
                "no gateway has a stream to the operator, so its beats may not arrive: look at the gateways".to_owned(),
            ),
            Held::RoundIsOpen => (
                Reason::GatewayUnproven,
                "this replica has just begun to lead, and waits for the beats that gateways took before".to_owned(),
            ),
        };
        (InstanceState::Held, reason, format!("its ttl has passed, but {why}"))
    }

    /// The ruling on a published instance for which no gateway has proven the time up to its deadline.
    pub(super) fn unproven(&self, record: &Record) -> Ruling {
        let who = self.gateway_of(record).map_or_else(
            || "no gateway".to_owned(),
            |gateway| {
                format!(
                    "neither {gateway}, which carried its last beat, nor another one that counts"
                )
            },
        );
        let message = format!(
            "its ttl has passed, but {who} has shown in time that beats can arrive: look at that gateway's log"
        );
        (InstanceState::Held, Reason::GatewayUnproven, message)
    }
}
