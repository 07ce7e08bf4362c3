//! What a Service publishes: each test has a namespace and an operator of its own, and instances
//! that live long without beating.

mod claims;
mod families;
mod neighbours;
mod pods;
mod pods_published;
mod repair;
mod scale;
mod services;
mod shapes;
mod words;
