//! The metrics of the agent, for Prometheus.
//!
//! All metrics belong to one [`AgentMetrics`](counts::AgentMetrics). Only one metric has a series for each
//! instance, for at most a thousand instances.

pub mod counts;
pub(crate) mod page;

mod instances;
