//! One scope, which is the cluster or one of the watched namespaces: builds its parts, and starts and stops them.

mod carrying;
mod observing;
mod owners;
mod publishing;
pub(super) mod run;
