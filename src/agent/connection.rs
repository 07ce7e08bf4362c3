//! What an agent needs before it can beat: its plan, and a connection to the API server.

use anyhow::{Context, Result};
use beatkeeper_client::{
    Connection,
    gateway::Gateway,
    headers::Headers,
    transport::{self, Source},
};

use super::{
    arguments::BeatArgs,
    plan::{self, Environment, Plan},
};

const USER_AGENT: &str = concat!("beatkeeper-agent/", env!("CARGO_PKG_VERSION"));

/// Reads all that beating needs: the plan from the current settings, and a connection to the API server.
pub(super) fn prepare(args: &BeatArgs) -> Result<(Plan, Connection)> {
    let settings = plan::read(*args.settings.clone(), args.config.as_deref())?;
    let (mut connection, namespace) = connect()?;
    let plan = Plan::of(settings, &Environment { namespace, pod_name: pod_name() })?;
    connection.gateway = open_gateway(&plan)?;
    Ok((plan, connection))
}

pub(super) fn pod_name() -> Option<String> {
    std::env::var("POD_NAME").ok()
}

/// Makes the connection to the gateways of a plan, if it has any.
pub(super) fn open_gateway(plan: &Plan) -> Result<Option<Gateway>> {
    let open = |settings| Gateway::open(settings, USER_AGENT);
    Ok(plan.gateway.as_ref().map(open).transpose()?)
}

/// Returns a connection to the API server, and the default namespace of its configuration.
pub(super) fn connect() -> Result<(Connection, String)> {
    let source = Source::infer().context(
        "found no way to the API server: set KUBECONFIG, or run in a Pod with a ServiceAccount token",
    )?;
    let namespace = source.namespace().to_owned();
    let headers = Headers::default();
    let client = transport::connect(source, USER_AGENT, &headers)?;
    Ok((Connection { client, headers, gateway: None }, namespace))
}
