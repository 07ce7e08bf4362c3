//! The reasons: why an instance is in its state, and why a condition of a registration has its value.
//!
//! This is the only list of them. The API reference and the labels of metrics are made from it.

use std::fmt::Write;

/// Makes an enum of reasons with what is said of each: the states or conditions that it belongs to, its meaning, and
/// what to do.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($reason:ident: $of:literal, $meaning:literal, $remedy:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $(#[doc = $meaning] $reason,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$reason),*];

            /// The reason as written in status, conditions, events and metrics.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$reason => stringify!($reason),)*
                }
            }

            /// The reason of this name, if there is one.
            pub fn read(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
            }

            /// Its meaning, as a sentence.
            pub const fn meaning(self) -> &'static str {
                self.told()[1]
            }

            /// What to do, as a sentence.
            pub const fn remedy(self) -> &'static str {
                self.told()[2]
            }

            /// The states or conditions that it belongs to, its meaning, and what to do.
            const fn told(self) -> [&'static str; 3] {
                match self {
                    $(Self::$reason => [$of, $meaning, $remedy],)*
                }
            }
        }
    };
}

reasons! {
    /// Why an instance is in its state, as one word that users can search for.
    Reason {
        NeverBeat: "Waiting", "It is declared, or has a Lease without a renewTime: it has never beaten.", "Start it, or look at its client's log.";
        AwaitingBeat: "Waiting", "Its next beat publishes it. Its Lease is older than the operator's process, or has received no beat for a ttl while the instance was not published, or was restored from a backup.", "Nothing, if it runs.";
        NoAddressYet: "Waiting", "Its Pod has no address yet.", "Nothing; Kubernetes assigns one.";
        NotPublished: "Waiting, NotReady", "It is alive, and the slices do not contain it as decided, because the registration is stalled.", "See the condition `Stalled` of the registration.";
        PublishFailed: "any", "The slices do not contain what was decided, because a write failed or was refused. The message quotes the API server.", "Look at the admission plugin or the quota that refuses it.";
        Beating: "Ready", "Its beats arrive in time.", "Nothing.";
        BeatOverdue: "Ready", "A beat is late by more than half of ttl − interval.", "Look at the instance and at its connection, if it lasts.";
        Adopted: "Ready, NotReady", "It was taken over from a hand-written object, and has not beaten yet.", "Let it beat.";
        HealthFailing: "NotReady", "Its Lease reports failing health.", "Look at its note, and at the instance.";
        HealthUnknown: "NotReady", "The health in its Lease has a value that the contract does not define.", "Correct its client.";
        PodNotReady: "NotReady", "The condition ContainersReady of its Pod, or a readiness gate, is not true.", "Look at the Pod.";
        HealthDraining: "Draining", "Its Lease reports that it is draining.", "Nothing.";
        PodTerminating: "Draining", "Its Pod is being deleted.", "Nothing.";
        Cordoned: "Cordoned", "A person has removed it from what is published.", "Lift the cordon when it may come back.";
        TTLPassed: "Expired", "Its ttl passed without a beat, and a live read confirmed this.", "Start it again; its next beat publishes it.";
        LeaseUnreadable: "Held, Waiting", "Its ttl has passed, and its Lease cannot be read.", "Look at the API server, and at the operator's rights.";
        PathUnproven: "Held", "Its ttl has passed, and the operator's own probe does not come back, so beats may be lost on the same path.", "Look at the API server.";
        PathBroken: "Held", "Its ttl has passed, and almost no beats arrive in its namespace, or in the whole cluster.", "Look for what keeps instances from writing their Leases.";
        GatewayCutOff: "Held", "Its ttl has passed. The stream of the gateway that carried its last beat is broken, and the gateway lives.", "Look at the network between the operator and the gateway.";
        NoGateway: "Held", "Its ttl has passed, and no gateway has a stream to the operator, so its beats may not arrive.", "Look at the gateways.";
        GatewayUnproven: "Held", "Its ttl has passed, and no gateway has proven yet that beats could arrive up to then.", "Look at the log and the metrics of the gateways, if it lasts.";
        Protected: "Held", "Its ttl has passed, and fewer than `spec.protection.minReady` instances would be left.", "Start more instances.";
        NameMismatch: "Rejected", "The name of its Lease does not begin with the name of its registration.", "Create the Lease under the right name.";
        HolderMissing: "Rejected", "Its Lease names no holder.", "Set `spec.holderIdentity`.";
        HolderMismatch: "Rejected", "The holder of its Lease is not the instance that the name of the Lease says.", "Make them agree.";
        PodNotSelected: "Rejected", "The registration admits no Pods, or not this Pod.", "Correct the selector, or the labels of the Pod.";
        PodNotFound: "Rejected", "No Pod has this name.", "Delete the Lease.";
        PodReplaced: "Rejected", "Its Lease belongs to an earlier Pod with this name.", "Delete the Lease, so that the present Pod creates its own.";
        AddressMissing: "Rejected", "It names no address.", "Write its address into its Lease, or into the spec.";
        AddressRefused: "Rejected", "Its address may not be published.", "Ask the operator's administrator to allow it, or name another.";
        AddressFamilyMismatch: "Rejected", "It has no address of a family that the Service has.", "Give it one, or change the Service.";
        PortUnresolved: "Rejected", "None of its ports can be resolved to a number.", "Name the port in the Pod, or give a number.";
    }
}

reasons! {
    /// Why a condition of a registration has its value, as one word that users can search for.
    ConditionReason {
        Pending: "Ready", "No operator has looked at the registration yet.", "Wait for some seconds. If it lasts, see that an operator runs, and that it watches this namespace.";
        Published: "Ready", "What is published is what was decided.", "Nothing.";
        DryRun: "Ready, Available", "The registration is in a dry run: it decides, and publishes nothing. Ready is True, because nothing would prevent publishing; Available is Unknown.", "Remove the annotation to publish.";
        WriteFailed: "Ready, Reconciling", "A write failed, and is tried again.", "Read the message; it quotes the API server.";
        PublishFailed: "Ready, Reconciling", "The API server refuses something that should be published. It is tried again.", "Look at the admission plugin or the quota that refuses it.";
        InvalidSpec: "Ready, Stalled", "The spec has an error.", "Correct what the message names.";
        ServiceTaken: "Ready, Stalled", "An older registration publishes for the same Service.", "Declare the instances there, or name another Service.";
        ServiceHasSelector: "Ready, Stalled", "The Service has a selector, so the cluster publishes its endpoints.", "Remove the selector once its Pods beat, or name another Service.";
        ServiceIsExternalName: "Ready, Stalled", "The Service is of type ExternalName, which has no endpoints.", "Name another Service.";
        ServedByOthers: "Ready, Stalled", "Another manager publishes for the Service.", "Remove it, have it taken over, or name another Service.";
        PortsMismatch: "Ready, Stalled", "The Service has none of the ports of the spec.", "Give the ports the same names.";
        ServiceGone: "Ready, Stalled", "A Service that others made was deleted. It may be about to be created again.", "Wait for some seconds.";
        ServiceUnchanged: "Ready, Stalled", "The Service cannot be given the ports of the spec.", "Read the message; it quotes the API server.";
        ObjectUnreadable: "Ready, Stalled", "An object that belongs to the registration cannot be read, so nothing is changed.", "Mend or delete that object.";
        Deleting: "Ready, Stalled", "The registration is being deleted, and waits for finalizers.", "Let the controller that set the finalizer remove it.";
        AdoptionRefused: "Ready, Stalled", "What the annotation asks to take over cannot be taken over.", "Do what the message says.";
        AdoptionUnfinished: "Ready, Stalled", "The adoption is not complete yet, and is tried again.", "Read the message; it quotes the API server.";
        CannotRead: "Ready, Stalled, PruningHeld", "The operator may not read something that decisions need.", "Give the operator's ServiceAccount its rights.";
        PathUnproven: "Ready, Stalled, PruningHeld", "The operator's probe has not come back yet, so nothing is published or pruned.", "Look at the API server, and at the operator's rights.";
        InstancesReady: "Available", "At least one instance is ready.", "Nothing.";
        NoInstanceReady: "Available", "No instance is ready.", "Look at the reasons of the instances.";
        ClaimedTwice: "NameConflict", "Several processes beat under one instance name.", "Give each process a name of its own.";
    }
}

impl Reason {
    /// The reasons for which an instance stays published although its ttl has passed.
    pub fn holds() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|reason| reason.told()[0].starts_with("Held"))
    }
}

/// The section of the API reference that lists the reasons, as Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "\n## Reasons of instances\n\nThe reason of an instance in `status.instances`, in events and in metrics.\n\n",
    );
    table(&mut page, "States", Reason::ALL.iter().map(|it| (it.as_str(), it.told())));
    page.push_str(
        "\n## Reasons of conditions\n\nThe reason of a condition in `status.conditions`. `PruningHeld` may also have the reason of an instance that is held.\n\n",
    );
    table(&mut page, "Conditions", ConditionReason::ALL.iter().map(|it| (it.as_str(), it.told())));
    page
}

fn table<'a>(page: &mut String, of: &str, rows: impl Iterator<Item = (&'a str, [&'a str; 3])>) {
    // Writing to a String never fails.
    let _ = writeln!(page, "| Reason | {of} | Meaning | What to do |\n|---|---|---|---|");
    for (name, [of, meaning, remedy]) in rows {
        let _ = writeln!(page, "| `{name}` | {of} | {meaning} | {remedy} |");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_reference_ends_with_the_list_of_reasons() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md");
        let page = std::fs::read_to_string(page).expect("the page");
        assert!(
            page.ends_with(&reference()),
            "docs/api.md lacks the present reasons; run `cargo run -- crd --docs > docs/api.md`"
        );
    }

    #[test]
    fn the_reason_in_the_default_of_the_crd_is_one_of_the_list() {
        assert_eq!(ConditionReason::Pending.as_str(), beatkeeper_api::status::condition::PENDING);
    }

    #[test]
    fn an_instance_is_held_for_seven_reasons() {
        let holds: Vec<&str> = Reason::holds().map(Reason::as_str).collect();
        let by_gateways = ["GatewayCutOff", "NoGateway", "GatewayUnproven"];
        let by_leases = ["LeaseUnreadable", "PathUnproven", "PathBroken"];
        assert_eq!(holds, [&by_leases[..], &by_gateways, &["Protected"]].concat());
    }
}
