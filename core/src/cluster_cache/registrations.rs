//! The known registrations, and the indexes to find them by. The cost of a look-up depends on its own namespace only,
//! not on the number of registrations in other namespaces. This matters because the whole world is locked during a
//! look-up.

use std::{collections::BTreeSet, time::Duration};

use beatkeeper_api::ServiceRegistration;
use kube::ResourceExt;

use crate::{
    cluster_cache::{ClusterCache, briefs::Brief, object_cache::identity},
    objects::{labels::Labels, registration::Registration},
    vocabulary::{key::Key, pace::Pace},
};

/// The finalizer of an object that is deleted with `--cascade=orphan`.
const ORPHANING: &str = "orphan";

impl ClusterCache {
    /// The oldest of the other registrations for the same Service, if it is older than this one.
    pub fn elder(&self, key: &Key) -> Option<String> {
        let own = self.registrations.get(key)?;
        let rank = |brief: &Brief, name: &str| (brief.created, name.to_owned());
        self.registrations
            .by_service
            .get(&Key::new(&key.namespace, &own.service))?
            .iter()
            .filter(|name| **name != key.name)
            .filter_map(|name| {
                let brief = self.registrations.get(&Key::new(&key.namespace, name))?;
                Some(rank(brief, name))
            })
            .min()
            .filter(|other| *other < rank(own, &key.name))
            .map(|(_, name)| name)
    }

    /// Takes in a registration. Returns the registrations that the change concerns: this one, and those that share a
    /// Service with it before or after the change. A change of the status alone concerns none. Otherwise each status
    /// that the operator writes would wake the registration and cut its backoff short.
    pub fn put_registration(&mut self, object: &ServiceRegistration) -> Vec<Key> {
        let (key, _) = identity(&object.metadata);
        let registration = Registration::validate(object);
        let pace = registration.pace();
        let Registration { dry_run, consent, uncordon, selector, .. } = registration;
        let selector = selector.filter(|selector| !selector.selects_all());
        let brief = Brief {
            service: object.service_name().to_owned(),
            uid: object.metadata.uid.clone().unwrap_or_default(),
            created: object.metadata.creation_timestamp.as_ref().map(|time| time.0),
            pace,
            generation: object.metadata.generation,
            deleting: object.metadata.deletion_timestamp.is_some(),
            dry_run,
            consent,
            uncordon,
            selector,
        };
        let place = Key::new(&key.namespace, &brief.uid);
        if brief.deleting && object.finalizers().iter().any(|it| it == ORPHANING) {
            self.belongings.let_go(&place);
        }
        if self.registrations.get(&key) == Some(&brief) {
            return Vec::new();
        }
        let same = self.registrations.live(&key, &brief.uid);
        let mut concerned = self.take_registration(&key, !same);
        let service = Key::new(&key.namespace, &brief.service);
        self.belongings.appeared(&place);
        let all = &mut self.registrations;
        all.by_service.entry(service.clone()).or_default().insert(key.name.clone());
        all.by_slack.insert((brief.pace.slack(), key.clone()));
        all.briefs.insert(key, brief);
        concerned.extend(self.registrations_of(&service));
        concerned
    }

    /// Forgets a registration. Returns the registrations that shared its Service.
    pub fn remove_registration(&mut self, key: &Key) -> Vec<Key> {
        self.take_registration(key, true)
    }

    fn take_registration(&mut self, key: &Key, gone: bool) -> Vec<Key> {
        self.dependents.forget(key);
        let all = &mut self.registrations;
        let Some(brief) = all.briefs.remove(key) else { return Vec::new() };
        all.by_slack.remove(&(brief.pace.slack(), key.clone()));
        let service = Key::new(&key.namespace, brief.service);
        if let Some(names) = all.by_service.get_mut(&service) {
            names.remove(&key.name);
        }
        if gone {
            self.belongings.went(&Key::new(&key.namespace, brief.uid));
        }
        let concerned = self.registrations_of(&service);
        if concerned.is_empty() {
            self.registrations.by_service.remove(&service);
        }
        concerned
    }

    /// The known registrations that are not among those of a list.
    pub fn registrations_beyond(&self, listed: &BTreeSet<Key>) -> Vec<Key> {
        let known = self.registrations.briefs.keys();
        known.filter(|key| !listed.contains(key)).cloned().collect()
    }

    /// Whether this registration is known.
    pub fn has_registration(&self, key: &Key) -> bool {
        self.registrations.get(key).is_some()
    }

    /// The pace of a registration, if the registration is known.
    pub fn pace_of(&self, key: &Key) -> Option<Pace> {
        self.registrations.get(key).map(|brief| brief.pace)
    }

    /// The pace of the registration with the least slack.
    pub fn tightest_pace(&self) -> Option<Pace> {
        let (_, key) = self.registrations.by_slack.first()?;
        self.pace_of(key)
    }

    /// The longest ttl of all registrations.
    pub fn longest_ttl(&self) -> Option<Duration> {
        self.registrations.briefs.values().map(|brief| brief.pace.ttl).max()
    }

    /// Whether a registration is in a dry run.
    pub fn is_dry_run(&self, key: &Key) -> bool {
        self.registrations.get(key).is_some_and(|brief| brief.dry_run)
    }

    /// The names of the registrations that have to publish a Pod with these labels before the Pod becomes ready: those
    /// for which the Pod beats, and those with a selector that matches it. A selector that accepts every Pod does not
    /// count.
    pub fn claimants(&self, namespace: &str, labels: &Labels, beating: &[Key]) -> Vec<String> {
        let selects = |brief: &Brief| brief.selector.as_ref().is_some_and(|it| it.matches(labels));
        self.registrations
            .of_namespace(namespace)
            .filter(|(_, brief)| !brief.deleting && !brief.dry_run)
            .filter(|(key, brief)| selects(brief) || beating.contains(key))
            .map(|(key, _)| key.name.clone())
            .collect()
    }

    /// The registrations of a Service.
    pub fn registrations_of(&self, service: &Key) -> Vec<Key> {
        let names = self.registrations.by_service.get(service).into_iter().flatten();
        names.map(|name| Key::new(&service.namespace, name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn registration(namespace: &str, name: &str, ttl: &str) -> ServiceRegistration {
        serde_json::from_value(json!({
            "metadata": { "namespace": namespace, "name": name, "uid": format!("{namespace}-{name}") },
            "spec": {
                "ttl": ttl, "interval": "1s", "ports": [{ "port": 80 }],
                "podSelector": { "matchLabels": { "app": name } },
            },
        }))
        .expect("a registration")
    }

    /// A world with two registrations in "shop", and many in each of two other namespaces around it.
    fn cluster(others: usize) -> ClusterCache {
        let mut cluster = ClusterCache::default();
        for name in ["cart", "greeter"] {
            cluster.put_registration(&registration("shop", name, "30s"));
        }
        for n in 0..others {
            for namespace in ["sho", "shop-2"] {
                cluster.put_registration(&registration(namespace, &format!("greeter-{n}"), "1h"));
            }
        }
        cluster
    }

    #[test]
    fn what_has_to_publish_a_pod_is_found_at_the_cost_of_its_namespace() {
        let labels = Labels::from(&[("app".to_owned(), "greeter".to_owned())].into());
        for others in [0, 1000] {
            let cluster = cluster(others);
            assert_eq!(cluster.claimants("shop", &labels, &[]), ["greeter"]);
            let beating = [Key::new("shop", "cart")];
            assert_eq!(cluster.claimants("shop", &labels, &beating), ["cart", "greeter"]);
            assert_eq!(cluster.registrations.steps.get(), 4, "beside {others}");
        }
    }

    #[test]
    fn the_tightest_pace_is_that_of_the_registrations_that_are_there() {
        let mut cluster = cluster(3);
        let tightest =
            |cluster: &ClusterCache| cluster.tightest_pace().map(|pace| pace.ttl.as_secs());
        assert_eq!(tightest(&cluster), Some(30));
        cluster.put_registration(&registration("shop", "cart", "5s"));
        assert_eq!(tightest(&cluster), Some(5));
        cluster.put_registration(&registration("shop", "cart", "1h"));
        assert_eq!(tightest(&cluster), Some(30));
        cluster.remove_registration(&Key::new("shop", "greeter"));
        assert_eq!(tightest(&cluster), Some(3600));
    }
}
