//! The long bodies that are read now. Each may fill half a MiB before it is known what it says, so they are few.
//! Short ones do not count.

use std::{cell::Cell, rc::Rc};

use beatkeeper_core::carriers::rights::Identity;

use crate::{counts::Counts, http::refusal::Refused, settings::Limits};

/// The long bodies that are read now.
#[derive(Debug, Default)]
pub struct Bodies {
    all: Cell<usize>,
    by_identity: Counts<Identity>,
}

/// A body that is read until this is dropped.
#[derive(Debug)]
pub struct Body {
    bodies: Rc<Bodies>,
    identity: Identity,
}

impl Bodies {
    /// A body of this identity is about to be read.
    ///
    /// # Errors
    /// [`Refused::TooManyBodies`] if this identity has too many, and [`Refused::BodiesBusy`] if all together have.
    pub fn begin(self: &Rc<Self>, identity: &Identity, limits: &Limits) -> Result<Body, Refused> {
        if self.by_identity.of(identity) >= limits.bodies_per_identity {
            return Err(Refused::TooManyBodies(limits.bodies_per_identity));
        }
        if self.all.get() >= limits.bodies {
            return Err(Refused::BodiesBusy);
        }
        self.by_identity.more(identity.clone());
        self.all.set(self.all.get() + 1);
        Ok(Body { bodies: self.clone(), identity: identity.clone() })
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.bodies.all.set(self.bodies.all.get() - 1);
        self.bodies.by_identity.less(&self.identity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: usize) -> Identity {
        Identity { user: format!("user-{n}").into(), pod: None }
    }

    #[test]
    fn an_identity_reads_two_bodies_at_a_time_and_all_together_so_many() {
        let limits = Limits { bodies: 3, bodies_per_identity: 2, ..Limits::default() };
        let bodies = Rc::new(Bodies::default());
        let begin = |n| bodies.begin(&user(n), &limits);
        let (first, _second) = (begin(0).unwrap(), begin(0).unwrap());
        assert_eq!(begin(0).err(), Some(Refused::TooManyBodies(2)));
        let third = begin(1).unwrap();
        assert_eq!(begin(2).err(), Some(Refused::BodiesBusy));
        drop(first);
        let _fourth = begin(0).unwrap();
        drop(third);
        assert!(!bodies.by_identity.0.borrow().contains_key(&user(1)), "nothing is kept of it");
        assert!(begin(2).is_ok());
    }
}
