//! What the demo, the benchmark and the tests share.
//!
//! The [`SliceObserver`] watches EndpointSlices as any client may, and records the moment of each change. It neither
//! asks the operator nor depends on how the operator works. [`write_gateway_certificates`] makes what gateways need.

mod certificates;
mod history;
mod observer;

pub use certificates::write_gateway_certificates;
pub use history::{Change, History, Stay};
pub use observer::{EndpointsObserver, Observer, Published, Select, SliceObserver};
