//! The beats of the gateway's own, which prove that beats arrive (G3).
//!
//! They come in like any other beat: through the published address, the same port and the same parser. Only their token
//! is special. It is a secret of this process, so no other process can prove anything.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use beatkeeper_core::{
    carriers::frames::{Question, ReplicaName},
    vocabulary::key::Key,
};

/// The namespace of the path of such a beat. No Lease is read or written there.
pub const NAMESPACE: &str = "beatkeeper-gateway";

/// The questions that such beats answer.
#[derive(Debug)]
pub struct Proofs {
    secret: String,
    last: RefCell<u64>,
    under_way: RefCell<BTreeMap<u64, Vec<(ReplicaName, Question)>>>,
    /// Where connections of this process's own come from that are not accepted yet.
    sources: RefCell<BTreeSet<SocketAddr>>,
}

/// A connection of this process's own comes from here, until this is dropped.
#[derive(Debug)]
pub struct Source<'a> {
    proofs: &'a Proofs,
    address: SocketAddr,
}

impl Drop for Source<'_> {
    fn drop(&mut self) {
        self.proofs.sources.borrow_mut().remove(&self.address);
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Proofs {
    /// With this secret.
    pub fn new(secret: [u8; 32]) -> Self {
        let secret = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            secret,
            last: RefCell::default(),
            under_way: RefCell::default(),
            sources: RefCell::default(),
        }
    }

    /// A connection of this process's own is about to come from this address. It has to be told before the connection is
    /// made.
    pub fn begin_connection(&self, from: SocketAddr) -> Source<'_> {
        let address = canonical(from);
        self.sources.borrow_mut().insert(address);
        Source { proofs: self, address }
    }

    /// Whether a connection from this address is such a one. No other process can have its port at the same time.
    pub fn is_own_connection(&self, from: SocketAddr) -> bool {
        self.sources.borrow().contains(&canonical(from))
    }

    /// The token of such a beat.
    pub fn token(&self) -> &str {
        &self.secret
    }

    /// Whether a token is that of such a beat. How long this takes says nothing about the secret.
    pub fn is_own(&self, token: &str) -> bool {
        token.len() == self.secret.len()
            && token.bytes().zip(self.secret.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }

    /// A beat is about to be sent that answers these questions. Returns its number.
    pub fn begin(&self, questions: Vec<(ReplicaName, Question)>) -> u64 {
        let mut last = self.last.borrow_mut();
        *last += 1;
        self.under_way.borrow_mut().insert(*last, questions);
        *last
    }

    /// The Lease that a beat with this number names.
    pub fn lease(number: u64) -> Key {
        Key::new(NAMESPACE, format!("proof.{number}"))
    }

    /// A beat with the secret has come in, for this Lease. Returns the questions that it answers.
    pub fn arrived(&self, lease: &Key) -> Vec<(ReplicaName, Question)> {
        let number = lease.name.strip_prefix("proof.").and_then(|number| number.parse().ok());
        let number = number.filter(|_| lease.namespace == NAMESPACE);
        number.and_then(|number| self.under_way.borrow_mut().remove(&number)).unwrap_or_default()
    }

    /// A beat was not answered. It answers nothing, even if it arrives later.
    pub fn give_up(&self, number: u64) {
        self.under_way.borrow_mut().remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_an_own_one_only_while_it_is_made() {
        let proofs = Proofs::new([7; 32]);
        let [own, mapped, other] = ["192.0.2.1:5", "[::ffff:192.0.2.1]:5", "192.0.2.2:5"]
            .map(|address| address.parse().unwrap());
        let source = proofs.begin_connection(own);
        let found = || [own, mapped, other].map(|from| proofs.is_own_connection(from));
        assert_eq!(found(), [true, true, false]);
        drop(source);
        assert_eq!(found(), [false; 3]);
    }

    #[test]
    fn a_proof_counts_once_and_only_with_the_secret_of_the_process() {
        let proofs = Proofs::new([7; 32]);
        let questions = vec![("replica-0".into(), Question(1))];
        let number = proofs.begin(questions.clone());
        assert!(proofs.is_own(&"07".repeat(32)));
        for wrong in ["", "07", &"06".repeat(32), &"07".repeat(33)] {
            assert!(!proofs.is_own(wrong), "{wrong}");
        }
        assert!(proofs.arrived(&Key::new("shop", format!("proof.{number}"))).is_empty());
        assert!(proofs.arrived(&Proofs::lease(number + 1)).is_empty());
        assert_eq!(proofs.arrived(&Proofs::lease(number)), questions);
        assert!(proofs.arrived(&Proofs::lease(number)).is_empty());
        let number = proofs.begin(questions);
        proofs.give_up(number);
        assert!(proofs.arrived(&Proofs::lease(number)).is_empty());
    }
}
