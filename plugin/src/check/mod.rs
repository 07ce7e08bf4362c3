//! Checks an installation, or a cluster before one.
//!
//! `gather::check` reads [`facts`]; everything here is pure: facts become [`verdict`]s, each of one [`id::Check`].

pub mod before;
pub mod explain;
pub mod facts;
pub mod gateways;
pub mod guards;
pub mod id;
pub mod installation;
pub mod operator;
pub mod registrations;
pub mod rights;
pub mod store;
pub mod verdict;

#[cfg(test)]
mod tests;

use facts::Facts;
use verdict::Verdict;

/// The verdicts on an installation, in the order in which a person should read them.
pub fn installation(facts: &Facts) -> Vec<Verdict> {
    let parts = [
        installation::verdicts(facts),
        operator::verdicts(facts),
        explain::verdicts(facts),
        rights::of_operator(facts),
        guards::verdicts(facts),
        registrations::verdicts(facts),
        vec![store::verdict(facts)],
        gateways::verdicts(facts),
    ];
    parts.into_iter().flatten().collect()
}
