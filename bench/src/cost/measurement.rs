//! A measurement in progress: what the operator has used, and what it and the API server have counted.

use anyhow::Result;

use crate::driver::Driver;
use crate::messages::Instance;
use crate::meter::{self, Edge};
use crate::relay::Relay;
use crate::systems::control_plane::{Cluster, Operator};

/// A measurement in progress.
pub struct Measurement {
    pub driver: Driver,
    /// Counts the bytes of one operator.
    pub relay: Relay,
    pub cluster: Cluster,
    /// The number of operators started so far.
    pub operators: u32,
    /// The next number that no instance has had.
    pub newcomer: Instance,
}

impl Measurement {
    /// Starts the only operator. Its bytes are counted.
    pub async fn counted_operator(&mut self) -> Result<Operator> {
        let kubeconfig = self.cluster.kubeconfig_by(self.relay.port)?;
        let name = self.next_name();
        let operator = self.cluster.operator(&name, &kubeconfig, &[])?;
        self.cluster.until_it_publishes(&operator).await?;
        Ok(operator)
    }

    /// Returns the name of the next operator, for its log.
    pub fn next_name(&mut self) -> String {
        self.operators += 1;
        format!("operator-{}", self.operators)
    }

    /// Records all meters.
    pub async fn record(&mut self, operator: &Operator, edge: Edge<'_>) -> Result<()> {
        let parts = [self.cluster.api_server().await?, operator.part()?];
        // The API server's page is read first: it takes the longest, and is not a cost of the operator.
        meter::record_metrics(&self.driver.results, edge, &parts).await?;
        let (renewals, received) = (self.driver.renewals().await?, self.relay.received());
        let [_, operator] = parts;
        let results = &self.driver.results;
        meter::record_usage(results, edge, &operator, Some(renewals), Some(received))
    }
}
