//! What a gateway and the operator agree on in Kubernetes objects.

/// The label of the Lease of a gateway. Its value is the name of the election's Lease of the operator that the gateway
/// belongs to.
pub const GATEWAY_LABEL: &str = "beatkeeper.dev/gateway";

/// What the name of the Lease of a gateway begins with. The name of its Pod follows.
pub const GATEWAY_LEASE_PREFIX: &str = "beatkeeper-gateway-";

/// The annotation of the Lease of a gateway that names the IP address and the port at which it takes streams.
pub const STREAMS_ANNOTATION: &str = "beatkeeper.dev/streams";

/// The annotation of the election's Lease that lists the gateways with beats that the leader may have acknowledged (G5).
pub const GATEWAYS_ANNOTATION: &str = "beatkeeper.dev/gateways";

/// The annotation of the probe Lease of a replica that knows carriers (G12).
pub const CARRIERS_ANNOTATION: &str = "beatkeeper.dev/carriers";
