//! Why a change is not made, although the command line and the connection are sound.

/// Why a change is not made. Each message says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// It is cordoned.
    #[error(
        "{instance} is cordoned already{}\n\
         To give another reason, lift the cordon first: kubectl beatkeeper -n {namespace} uncordon {instance}",
        because(reason)
    )]
    AlreadyCordoned {
        /// The namespace.
        namespace: String,
        /// Registration and instance.
        instance: String,
        /// The reason that was given.
        reason: String,
    },
    /// It drains.
    #[error("{instance} drains already{}\nTo end that: {end}", because(note))]
    AlreadyDraining {
        /// Registration and instance.
        instance: String,
        /// The note in its Lease.
        note: String,
        /// The command that ends it.
        end: String,
    },
    /// It is not cordoned.
    #[error("{instance} is not cordoned{hint}")]
    NotCordoned {
        /// Registration and instance.
        instance: String,
        /// What there is instead, on lines of its own; may be empty.
        hint: String,
    },
    /// Others have changed the registration between each read and write.
    #[error("ServiceRegistration {name} changes all the time\nTry again.")]
    Contended {
        /// The registration.
        name: String,
    },
    /// It has no Lease, on which this is written.
    #[error("{instance} has no Lease, and {what} is an annotation of the Lease\n{hint}")]
    NoLease {
        /// Registration and instance.
        instance: String,
        /// What should be written.
        what: &'static str,
        /// How to remove the instance instead.
        hint: String,
    },
    /// No operator has reported on the registration.
    #[error(
        "no operator has reported on ServiceRegistration {name} as it is now, so what it would publish is not known\n\
         See that the operator runs, and that namespace {namespace} is one of those it watches."
    )]
    NotReported {
        /// The namespace.
        namespace: String,
        /// The registration.
        name: String,
    },
    /// Too few instances would be left, and there is no terminal to ask on.
    #[error(
        "nothing was changed: too few instances would be left\n\
         Start others first, or add --yes to do it all the same."
    )]
    TooFew,
    /// A person has said no.
    #[error("nothing was changed")]
    Declined,
    /// The operator has not lifted a cordon in time.
    #[error(
        "no operator has lifted the cordon of {instance} within {seconds}s\n\
         The annotation that asks for it stays, so that the operator lifts the cordon when it runs. Remove it afterwards, \
         or it also lifts later cordons of this name:\n  {clean_up}"
    )]
    NotLifted {
        /// Registration and instance.
        instance: String,
        /// How long it was waited for.
        seconds: u64,
        /// The command that removes the annotation.
        clean_up: String,
    },
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}
