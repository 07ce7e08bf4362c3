//! The parts of a scope that belong to gateways, on every replica.

use std::sync::{Arc, PoisonError};

use super::owners::{GatewayOwner, Scope};
use crate::controller::{
    carriers::{
        discovery::Discovery,
        judge::Judge,
        proving::GatewayProofs,
        task::{GatewayTask, Surroundings},
        term::CarrierTerms,
    },
    host,
};

impl Scope {
    /// Starts the streams to gateways, if there are any.
    pub(super) fn start_gateways(&self) {
        let Some(GatewayOwner { network, outbox }) = &self.gateways else { return };
        let outbox = outbox.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(outbox), Some(election)) = (outbox, &self.settings.election) else { return };
        let discovery = Arc::new(Discovery::new(
            self.telemetry.clock,
            self.liveness.clone(),
            self.api.clone(),
            host::own_namespace(&self.api.client),
            election.name.clone(),
        ));
        let around = Surroundings {
            terms: self.carrier_terms(),
            cluster: self.cluster.clone(),
            queue: self.queue.clone(),
            others: self.other_probes.clone(),
            discovery: discovery.clone(),
            metrics: self.telemetry.metrics.clone(),
        };
        let judge = Judge {
            api: self.api.clone(),
            cluster: self.cluster.clone(),
            liveness: self.liveness.clone(),
            namespace: self.namespace.clone(),
        };
        let (network, replica) = (network.clone(), self.identity.as_str().into());
        self.tasks.spawn_for_ever(discovery.run());
        self.tasks.spawn_for_ever(async move {
            GatewayTask::new(around, judge, network.open(replica), outbox).run().await;
        });
    }

    pub(super) fn carrier_terms(&self) -> CarrierTerms {
        CarrierTerms {
            clock: self.telemetry.clock,
            liveness: self.liveness.clone(),
            leadership: self.api.leadership.clone(),
        }
    }

    pub(super) fn gateway_proofs(&self) -> GatewayProofs {
        GatewayProofs {
            clock: self.telemetry.clock,
            liveness: self.liveness.clone(),
            leadership: self.api.leadership.clone(),
        }
    }
}
