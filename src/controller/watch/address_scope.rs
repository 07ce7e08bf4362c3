//! Ownership of addresses, for an operator that watches only some namespaces (P5).
//!
//! An outside instance must not have the address of a Pod, a Service, a Node or the API server. The operator
//! knows these addresses from the watches of Pods, Services and slices. The addresses of other namespaces
//! matter, too: an operator that did not see them would publish a Pod of another namespace for any Lease that
//! names its address.
//!
//! So if addresses outside the cluster are allowed, there are two ways. Either these kinds are watched in all
//! namespaces, which requires the right to read them, or the administrator names the networks of the cluster.
//! With neither, the operator does not start, and what is published stays.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::controller::settings::Settings;
use crate::kube_client::list::Collection;

/// The pause between two attempts to find out what may be read.
const PAUSE: Duration = Duration::from_secs(1);
/// The variable in which Kubernetes tells a Pod the address of the API server's Service.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";
/// The variable in which the chart tells the operator its own addresses.
const POD_IPS: &str = "POD_IPS";

/// Whether Pods, Services and slices of other namespaces are watched besides those of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressScope {
    /// Only objects of the scope are watched.
    None,
    /// Objects of all namespaces are watched.
    All,
}

/// Why the operator does not start.
#[derive(Debug, thiserror::Error)]
pub enum AddressesUnknown {
    /// The operator may not read which objects own addresses, and no networks were given.
    #[error(
        "--outside-range is given for namespace {namespace}, but this operator, which watches some namespaces \
         only, cannot know which addresses in there belong to Pods, Services and Nodes: {why}. Either let it list and watch \
         pods, services and endpointslices of all namespaces, or name the networks of Pods, Services and Nodes \
         with --cluster-network (in the chart: clusterNetworks), where no outside instance may lie then"
    )]
    MayNotLook {
        /// The namespace with an outside range.
        namespace: String,
        /// The message of the API server.
        why: String,
    },
    /// The given networks do not contain all known addresses of the cluster.
    #[error(
        "{address} ({of}) lies in none of the networks that --cluster-network names ({networks}): add the network of \
         the cluster that it belongs to, or {address} alone"
    )]
    Incomplete {
        /// An address of the cluster.
        address: IpAddr,
        /// The source of the address.
        of: &'static str,
        /// The networks that were given.
        networks: String,
    },
}

/// Which namespaces each scope must watch for addresses.
pub(crate) struct AddressScopes(Vec<String>);

impl AddressScopes {
    pub(crate) fn of(&self, namespace: Option<&str>) -> AddressScope {
        match namespace {
            Some(namespace) if self.0.iter().any(|known| known == namespace) => AddressScope::All,
            _ => AddressScope::None,
        }
    }
}

/// Finds out for which namespaces the addresses of other namespaces must be watched, and whether they may be.
///
/// # Errors
/// [`AddressesUnknown`].
pub(crate) async fn determine(
    client: &Client,
    settings: &Settings,
    stop: &CancellationToken,
) -> Result<AddressScopes, AddressesUnknown> {
    let ranges = &settings.outside_ranges;
    let open = |namespace: &&String| !ranges.of(namespace).is_empty();
    let open: Vec<String> = settings.namespaces.iter().filter(open).cloned().collect();
    let known = [(SERVICE_HOST, SERVICE_HOST), (POD_IPS, "the operator's own address")];
    for (variable, of) in known {
        complete(&std::env::var(variable).unwrap_or_default(), of, ranges.cluster_networks())?;
    }
    let Some(namespace) = open.first() else { return Ok(AddressScopes(Vec::new())) };
    if ranges.knows_the_cluster() {
        return Ok(AddressScopes(Vec::new()));
    }
    while !stop.is_cancelled() {
        match may_look(client).await {
            Ok(()) => break,
            Err(kube::Error::Api(status)) if status.code == 403 => {
                let why = status.message.chars().take(500).collect();
                return Err(AddressesUnknown::MayNotLook { namespace: namespace.clone(), why });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot find out yet which object owns which address");
                let _ = stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
            }
        }
    }
    Ok(AddressScopes(open))
}

/// Tries to read the kinds that have addresses, in all namespaces.
async fn may_look(client: &Client) -> kube::Result<()> {
    Collection::of::<Pod>(client, None).version().await?;
    Collection::of::<Service>(client, None).version().await?;
    Collection::of::<EndpointSlice>(client, None).version().await.map(drop)
}

/// Checks that the given networks contain these addresses of the cluster, which are separated by commas.
/// Without networks nothing is checked.
///
/// # Errors
/// [`AddressesUnknown::Incomplete`].
fn complete(addresses: &str, of: &'static str, networks: &[IpNet]) -> Result<(), AddressesUnknown> {
    let addresses = addresses.split(',').filter_map(|text| text.trim().parse::<IpAddr>().ok());
    let mut outside =
        addresses.filter(|address| !networks.iter().any(|network| network.contains(address)));
    match outside.next() {
        Some(address) if !networks.is_empty() => {
            let networks: Vec<_> = networks.iter().map(IpNet::to_string).collect();
            Err(AddressesUnknown::Incomplete { address, of, networks: networks.join(", ") })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_lack_a_known_cluster_address_are_incomplete() {
        let networks = ["10.244.0.0/16", "fd00::/108"].map(|text| text.parse().expect("a network"));
        assert!(complete("10.244.3.4,fd00::7", SERVICE_HOST, &networks).is_ok());
        assert!(complete("api.example", SERVICE_HOST, &networks).is_ok(), "a name says nothing");
        assert!(complete("", SERVICE_HOST, &networks).is_ok());
        assert!(complete("10.96.0.1", SERVICE_HOST, &[]).is_ok(), "nothing is claimed");
        let error =
            complete("10.96.0.1", SERVICE_HOST, &networks).expect_err("the Services' is missing");
        assert_eq!(
            error.to_string(),
            "10.96.0.1 (KUBERNETES_SERVICE_HOST) lies in none of the networks that --cluster-network names \
             (10.244.0.0/16, fd00::/108): add the network of the cluster that it belongs to, or 10.96.0.1 alone"
        );
    }
}
