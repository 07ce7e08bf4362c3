//! What the tests of more than one area need.

pub mod crd;
