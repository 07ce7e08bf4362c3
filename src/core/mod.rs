//! What is decided, without I/O, clocks or async: observations and the present moment go in,
//! decisions and a plan come out.

pub mod endpoint;
pub mod plan;
