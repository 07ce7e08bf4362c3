//! Helpers that the tests of several areas share.

pub mod beats;
pub mod chaos;
pub mod crd;
pub mod fixture;
pub mod gateway;
pub mod http;
pub mod namespace;
pub mod observer;
pub mod operator;
pub mod prometheus;
pub mod published;
pub mod scrape;
pub mod usage;
pub mod writes;

pub use beats::Beats;
pub use fixture::Fixture;
pub use namespace::{TestNamespace, eventually};
pub use observer::ServiceObserver;
pub use operator::Operator;
pub use published::Published;
pub use usage::Usage;
