//! Tests against a real control plane, in one binary because they share one.
#![allow(clippy::unwrap_used)]

mod adoption;
mod agent;
mod agent_commands;
mod causes;
mod chaos;
mod chart;
mod client;
mod clocks;
mod crd;
mod docs;
mod dry_run;
mod events;
mod evidence;
mod examples;
mod fairness;
mod forgetting;
mod garbage;
mod health;
mod lag;
mod leader;
mod metrics;
mod ownership;
mod pins;
mod publishing;
mod reliability;
mod restart;
mod sdk;
mod stalled;
mod standing;
mod steady;
mod story;
mod support;
mod sweep;
mod throttling;
