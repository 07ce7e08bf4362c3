//! The watches, which keep the caches up to date.

pub(super) mod access;
pub(super) mod address_scope;
pub(super) mod backoff;
pub(super) mod begin;
pub(super) mod check;
pub(super) mod health;
pub(super) mod objects;
pub(super) mod registrations;
pub(super) mod relist;
pub(super) mod unreadable;
