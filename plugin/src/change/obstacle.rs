//! Why a change is not made, although the command line and the connection are sound.

use std::time::Duration;

use beatkeeper_api::duration;

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
    /// There is no terminal to ask on.
    #[error(
        "nothing was changed: there is no terminal to ask on\nAdd --yes to adopt it all the same."
    )]
    NotAgreed,
    /// A signal has ended the command.
    #[error("interrupted")]
    Interrupted,
    /// There is no Service of this name.
    #[error(
        "there is no Service {name} in namespace {namespace}\nChoose the namespace with --namespace."
    )]
    NoService {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
    },
    /// A field of the Service prevents its adoption.
    #[error("Service {name} cannot be adopted: {field} {problem}\n{remedy}")]
    NotAdoptable {
        /// The Service.
        name: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// There is a registration for the Service, or one of its name.
    #[error(
        "Service {service} cannot be adopted: ServiceRegistration {registration} {has} already\n\
         See what it does: kubectl beatkeeper -n {namespace} get {registration}"
    )]
    AlreadyRegistered {
        /// The namespace.
        namespace: String,
        /// The Service.
        service: String,
        /// The registration.
        registration: String,
        /// What the registration has: the Service or the name.
        has: &'static str,
    },
    /// No operator has reported on the rehearsal.
    #[error(
        "no operator has rehearsed the adoption within {}{}\n\
         See that the operator runs, that namespace {namespace} is one of those it watches, and its log.",
        duration::format(*within),
        last_said(last)
    )]
    NotRehearsed {
        /// The namespace.
        namespace: String,
        /// How long it was waited for.
        within: Duration,
        /// What the operator has reported last; may be empty.
        last: String,
    },
    /// The operator has not completed an adoption in time.
    #[error(
        "the operator has not completed the adoption within {}{}",
        duration::format(*within),
        last_said(last)
    )]
    NotCompleted {
        /// How long it was waited for.
        within: Duration,
        /// What the operator has reported last; may be empty.
        last: String,
    },
    /// The operator refuses the adoption.
    #[error("the operator refuses ({reason}): {message}\n{remedy}")]
    Refused {
        /// The reason, as one word.
        reason: String,
        /// What the operator says: the object, the problem and the remedy.
        message: String,
        /// What to do in such a case.
        remedy: String,
    },
    /// The cluster has not followed the label of a Service.
    #[error(
        "Endpoints {name} have not got label {label} of their Service within {}\n\
         See that kube-controller-manager runs.",
        duration::format(*within)
    )]
    NotFollowed {
        /// The Endpoints.
        name: String,
        /// The label.
        label: &'static str,
        /// How long it was waited for.
        within: Duration,
    },
    /// An adoption has ended before it took anything over.
    #[error(
        "{cause}\nThe registration of the rehearsal is deleted again, and what is published is as before."
    )]
    Undone {
        /// Why.
        cause: String,
    },
    /// An adoption has ended before it took anything over, and it could not be undone.
    #[error("{cause}\nThe adoption could not be undone. Undo it with:\n{}", commands(left))]
    NotUndone {
        /// Why it has ended, and why it could not be undone.
        cause: String,
        /// The commands that undo it.
        left: Vec<String>,
    },
    /// An adoption goes on without this command.
    #[error(
        "{cause}\nThe operator goes on with the adoption, and what is published stays. Follow it with:\n{}\n\
         To have it change nothing further:\n{}",
        commands(follow),
        commands(stop)
    )]
    GoesOn {
        /// Why the command has ended.
        cause: String,
        /// The command that follows it.
        follow: Vec<String>,
        /// The commands that stop it.
        stop: Vec<String>,
    },
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

fn last_said(last: &str) -> String {
    if last.is_empty() { String::new() } else { format!("; it has reported: {last}") }
}

/// Commands on lines of their own.
fn commands(commands: &[String]) -> String {
    commands.iter().map(|command| format!("  {command}")).collect::<Vec<_>>().join("\n")
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}
