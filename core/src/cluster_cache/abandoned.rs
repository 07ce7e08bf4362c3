//! Objects of a registration that is gone, and that no other registration takes over.

use crate::{
    cluster_cache::{
        ClusterCache,
        belongings::{Abandoned, Belonging, Belongings, Kind},
    },
    objects::marks::{Marked, SERVICE_NAME_LABEL, label},
    vocabulary::key::Key,
};

impl ClusterCache {
    /// Notes the owner of an object that has changed, as our annotation names it. An owner reference does not count,
    /// because the garbage collector handles it.
    pub(super) fn note_owner(
        &mut self,
        kind: Kind,
        key: &Key,
        old: Option<Marked<'_>>,
        new: Option<Marked<'_>>,
    ) {
        let object = (kind, key.clone());
        if let Some(marked) = new {
            let registration = Key::new(&key.namespace, marked.name);
            let lives = self.registrations.live(&registration, marked.uid);
            self.belongings.put(object.clone(), marked, lives);
        }
        if let Some(marked) = old.filter(|old| new.is_none_or(|new| new.uid != old.uid)) {
            self.belongings.remove(&object, marked.uid);
        }
    }

    /// The objects that belonged to a registration that is gone, and that are for a Service that no other registration
    /// names. `namespace` restricts them to one namespace; None means all. It has to be given if objects of other
    /// namespaces are known but the registrations of those namespaces are not. The cost is one look-up for each
    /// registration that is gone and has left objects.
    ///
    /// Earlier versions wrote an annotation without the namespace. Such an annotation may have been copied from another
    /// namespace together with its object. So the object is abandoned only if this process has itself seen its
    /// registration in the namespace of the object. The other objects stay ([`ClusterCache::undecided`]), because an object
    /// too many costs less than the loss of a user's object.
    pub fn abandoned(&self, namespace: Option<&str>) -> Vec<Abandoned> {
        self.left_behind(namespace, |says_namespace, witnessed| says_namespace || witnessed)
    }

    /// The objects that would be [abandoned](ClusterCache::abandoned), but are not, because each of them may be a copy.
    pub fn undecided(&self, namespace: Option<&str>) -> Vec<Abandoned> {
        self.left_behind(namespace, |says_namespace, witnessed| !says_namespace && !witnessed)
    }

    /// How many registrations these searches have looked at.
    #[cfg(test)]
    pub fn looked_at(&self) -> usize {
        self.belongings.steps.get()
    }

    fn left_behind(
        &self,
        namespace: Option<&str>,
        counts: impl Fn(bool, bool) -> bool,
    ) -> Vec<Abandoned> {
        let Belongings { of, without, let_go, .. } = &self.belongings;
        let from = Key::new(namespace.unwrap_or_default(), "");
        let concerns = |place: &&Key| namespace.is_none_or(|it| place.namespace == it);
        let mut found = Vec::new();
        for place in without.range(from..).take_while(concerns) {
            #[cfg(test)]
            self.belongings.steps.update(|steps| steps + 1);
            let Some(Belonging { registration, objects, witnessed }) = of.get(place) else {
                continue;
            };
            for ((kind, key), says_namespace) in objects {
                let service = match kind {
                    Kind::EndpointSlice => self.slices.get(key).and_then(|slice| {
                        let service = label(&slice.metadata, SERVICE_NAME_LABEL)?;
                        Some(Key::new(&key.namespace, service))
                    }),
                    Kind::Endpoints | Kind::Service => Some(key.clone()),
                };
                let is_wanted =
                    service.as_ref().is_some_and(|it| self.registrations.name_service(it));
                if is_wanted || !counts(*says_namespace, *witnessed) {
                    continue;
                }
                found.push(Abandoned {
                    kind: *kind,
                    key: key.clone(),
                    registration: registration.clone(),
                    owner: place.name.clone(),
                    service,
                    orphaned: let_go.contains(place),
                });
            }
        }
        found
    }
}
