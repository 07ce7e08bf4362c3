//! A real Kubernetes control plane as a library and a command: etcd, kube-apiserver and kube-controller-manager,
//! ready in seconds, without root and without containers.
//!
//! [`ControlPlane::start`] starts a control plane, [`ControlPlane::start_for_this_thread`] one for a single test. [`shared()`] returns the one that all tests of a process share.
//! The binaries are built once, from Go modules pinned by `go/*/go.mod` and `go.sum`, into the user's cache;
//! `KUBEBUILDER_ASSETS` names other binaries. All processes end with the process that started them, also if it is
//! killed. Any number of control planes can run side by side.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod audit;
mod backup;
mod binaries;
mod builder;
mod cache;
mod child;
mod client;
mod component;
mod control;
mod folder;
mod kubeconfig;
mod objects;
mod of_thread;
mod options;
mod part;
mod pki;
mod plane;
mod ports;
mod prepared;
mod process;
mod ready;
mod reporter;
mod shared;
mod supervisor;
mod toolchain;

pub use audit::{AuditEntry, AuditMark};
pub use backup::Backup;
pub use binaries::{ETCD_VERSION, KUBERNETES_VERSION, folder as binaries};
pub use child::Child;
pub use client::connect;
pub use component::Component;
pub use options::{Options, Progress};
pub use part::Part;
pub use plane::ControlPlane;
pub use ports::free_port;
pub use prepared::prepared;
pub use process::die_with_this_thread;
pub use shared::{ATTACH_VARIABLE, shared};
