//! `uncordon`: lifts the cordon of an instance, also if its Lease is gone.

use std::time::Duration;

use beatkeeper_api::{
    CordonedInstance, ServiceRegistration, heartbeat::Health, registration::UNCORDON_ANNOTATION,
    text::plain,
};
use clap::Args;
use tokio::time::{Instant, sleep};

use super::drain::{self, Notes};
use crate::{
    change::{
        obstacle::Obstacle,
        write::{self, Mark},
    },
    error::{Error, Outcome},
    flags::{ChangeFlags, ConnectionFlags, DryRun},
    gather::{self, scope::Scope},
    model::{finding::named, lease::SeenLease},
    output::Output,
    session::Session,
    target::{Found, Target, open, unknown},
};

/// The arguments of `uncordon`.
#[derive(Debug, Clone, Args)]
pub struct UncordonArgs {
    /// The registration and its instance, such as greeter/vm-1.
    #[arg(value_name = "NAME/INSTANCE")]
    instance: String,
    #[command(flatten)]
    change: ChangeFlags,
}

/// How long an operator may take to lift a cordon without a Lease. It needs milliseconds, and a new leader some seconds.
const LIFTED_WITHIN: Duration = Duration::from_secs(30);
/// The pause between two looks at the status.
const PAUSE: Duration = Duration::from_millis(200);

/// Lifts the cordon.
///
/// # Errors
/// [`Error`], if there is no such instance, it is not cordoned, no operator lifts the cordon of an instance without a
/// Lease, or the API server refuses it.
pub async fn run(
    args: &UncordonArgs,
    connection: &ConnectionFlags,
    output: &Output,
) -> Result<Outcome, Error> {
    let (target, session, found) = open(&args.instance, connection).await?;
    let lease = target.lease(&session).await?;
    let dry_run = args.change.dry_run;
    if let Some(lease) = lease.as_ref().filter(|lease| is_marked(lease)) {
        write::mark(&session.client, lease, &Mark::Cordon(None), dry_run).await?;
    } else if recorded(&found.object, &target.instance).is_some() {
        let without_lease = WithoutLease { target: &target, session: &session, dry_run };
        without_lease.lift(output).await?;
    } else if found.view.instance(&target.instance).is_none() {
        return Err(unknown(&session, &found.view, &target).await);
    } else {
        let hint = not_cordoned(&found, &target, lease.as_ref());
        return Err(Obstacle::NotCordoned { instance: target.to_string(), hint }.into());
    }
    output.text(&format!("instance {target} uncordoned{}\n", dry_run.suffix()))?;
    Ok(Outcome::Well)
}

fn is_marked(lease: &SeenLease) -> bool {
    lease.heartbeat.content.cordoned.is_some()
}

/// The cordon that the operator has recorded for an instance.
fn recorded<'a>(object: &'a ServiceRegistration, instance: &str) -> Option<&'a CordonedInstance> {
    object.status.as_ref()?.cordoned.iter().find(|cordon| cordon.name == instance)
}

/// What there is instead of a cordon of this instance.
fn not_cordoned(found: &Found, target: &Target, lease: Option<&SeenLease>) -> String {
    let registration = &target.registration;
    let recorded = found.object.status.iter().flat_map(|status| &status.cordoned);
    let instance = found.view.instance(&target.instance);
    let shares = |cordon: &&CordonedInstance| {
        instance.is_some_and(|it| {
            let pod = it.pod.as_ref().map(|pod| &*pod.name);
            (pod.is_some() && pod == cordon.pod.as_deref())
                || cordon.addresses.iter().any(|address| it.addresses.contains(address))
        })
    };
    if let Some(cordon) = recorded.clone().find(shares) {
        let name = plain(&cordon.name);
        return format!(
            "; the cordon of {name} applies to it, because it has the same address or Pod\n\
             Lift that one: kubectl beatkeeper -n {} uncordon {registration}/{name}",
            found.view.key.namespace
        );
    }
    if let Some(lease) = lease.filter(|it| it.heartbeat.content.health == Ok(Health::Draining)) {
        let end = drain::end(&found.view.key.namespace, &lease.key.name, Notes::Kept);
        return format!("; it drains\nTo end that: {end}");
    }
    let names: Vec<_> = recorded.map(|cordon| plain(&cordon.name)).collect();
    match names.is_empty() {
        true => format!("\nNo instance of {registration} is."),
        false => format!("\nThese are: {}", named(names.iter().map(AsRef::as_ref))),
    }
}

/// The way to lift a cordon that no Lease has.
struct WithoutLease<'a> {
    target: &'a Target,
    session: &'a Session,
    dry_run: DryRun,
}

impl WithoutLease<'_> {
    /// Asks the operator by an annotation of the registration, waits until it has lifted the cordon, and removes the
    /// name from the annotation.
    async fn lift(&self, output: &Output) -> Result<(), Error> {
        self.annotate(true).await?;
        if self.dry_run != DryRun::None {
            return Ok(());
        }
        output.remark("Its Lease is gone. The operator is asked to lift the cordon …");
        if !self.is_lifted().await? {
            return Err(Obstacle::NotLifted {
                instance: self.target.to_string(),
                seconds: LIFTED_WITHIN.as_secs(),
                clean_up: format!(
                    "kubectl -n {} annotate sreg {} {UNCORDON_ANNOTATION}-",
                    self.session.namespace, self.target.registration
                ),
            }
            .into());
        }
        self.annotate(false).await
    }

    async fn read(&self) -> Result<ServiceRegistration, Error> {
        let scope = Scope::Namespace(self.session.namespace.clone());
        gather::one(self.session, &scope, &self.target.registration).await
    }

    /// Adds the name to the annotation, or removes it. The operator writes the status meanwhile, so the condition may
    /// fail some times.
    async fn annotate(&self, add: bool) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            let object = self.read().await?;
            let before = object.metadata.annotations.as_ref();
            let before = before.and_then(|all| all.get(UNCORDON_ANNOTATION)).map(String::as_str);
            let names = write::uncordoned(before, &self.target.instance, add);
            if names.as_deref() == before {
                return Ok(());
            }
            let client = &self.session.client;
            if write::ask_for_uncordon(client, &object, names.as_deref(), self.dry_run).await? {
                return Ok(());
            }
            if begun.elapsed() > LIFTED_WITHIN {
                return Err(Obstacle::Contended { name: self.target.registration.clone() }.into());
            }
            sleep(PAUSE).await;
        }
    }

    /// Whether the operator lifts the cordon in time.
    async fn is_lifted(&self) -> Result<bool, Error> {
        let begun = Instant::now();
        while begun.elapsed() < LIFTED_WITHIN {
            if recorded(&self.read().await?, &self.target.instance).is_none() {
                return Ok(true);
            }
            // Meanwhile the instance may have registered again, and the operator may have written the cordon back.
            if let Some(lease) = self.target.lease(self.session).await?.filter(is_marked) {
                write::mark(&self.session.client, &lease, &Mark::Cordon(None), self.dry_run)
                    .await?;
            }
            sleep(PAUSE).await;
        }
        Ok(false)
    }
}
