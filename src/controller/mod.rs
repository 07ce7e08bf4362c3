//! The shell around the core. It reads from the Kubernetes API for the core, and it carries out the core's
//! plans.
//!
//! [`run()`] starts one watch of each kind and waits until each kind has been listed once. Then it reconciles one
//! registration at a time (`reconcile`). A heartbeat does not cause a reconciliation: the watch of the Leases
//! updates the liveness index, and only a change that may change a decision wakes a registration. With leader
//! election all replicas watch, and only the leader (`leader`) reconciles and writes.

mod api;
mod app;
mod backoff;
mod call;
mod carriers;
mod clock;
mod cluster;
mod error;
mod explain;
mod gc;
mod host;
mod leader;
mod liveness;
mod metrics;
mod observer;
mod probe;
mod queue;
mod reconcile;
mod registrations;
mod report;
mod rollback;
mod scope;
mod secure;
mod serve;
mod settings;
mod states;
mod tasks;
mod telemetry;
mod term;
mod trace;
mod watch;

pub use app::{RunError, run, run_on};
pub use carriers::{
    args::{GatewayArgs, GatewaySettings},
    port::{Event as GatewayEvent, Network as GatewayNetwork, Streams as GatewayStreams},
};
pub use clock::Clock;
pub use host::{Host, Process, Supervisor};
pub use leader::args::{ElectionSettings, LeaderArgs};
pub(crate) use metrics::page::section as metrics_section;
pub use observer::{Compared, ComparedPlans, Decided, Observer, Undecided, Unobserved};
pub use secure::certificate::CertificateError;
pub use serve::{BindError, ServeError};
pub use settings::{Args, LogFormat, Settings, SettingsError};
pub use trace::{
    args::{Endpoint, ParseEndpointError, TraceArgs, TraceSettings},
    collector::{Collector, CollectorError},
};
