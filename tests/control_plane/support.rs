//! Helpers that the tests of several areas share.

pub mod beats;
pub mod chaos;
pub mod crd;
pub mod http;
pub mod operator;
pub mod published;
pub mod scrape;
pub mod shop;
pub mod stage;
pub mod usage;
pub mod vigil;
pub mod witness;
pub mod writes;

pub use beats::Beats;
pub use operator::Operator;
pub use published::Published;
pub use shop::{Shop, eventually};
pub use stage::Stage;
pub use usage::Usage;
pub use vigil::Vigil;
pub use witness::Witness;
