//! The modelled API server: executes requests on the store.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use beatkeeper_core::vocabulary::key::Key;
use hyper::body::Bytes;

use crate::{
    store::{Change, Store, Stored, merge},
    wire::{Ask, Asked, Refusal, kind},
};

/// What a request came to.
#[derive(Clone)]
pub enum Answer {
    Object(Rc<Stored>),
    /// A page of a list, or the confirmation of a delete.
    Text(Bytes),
    Refused(Refusal),
}

impl Answer {
    pub fn code(&self) -> u16 {
        if let Self::Refused(refusal) = self { refusal.code } else { 200 }
    }

    pub fn body(&self) -> Bytes {
        match self {
            Self::Object(object) => object.text.clone(),
            Self::Text(text) => text.clone(),
            Self::Refused(refusal) => refusal.body(),
        }
    }
}

/// The rest of a list, and the version that it shows.
type Rest = (Vec<Rc<Stored>>, u64);

#[derive(Default)]
pub struct Server {
    pub store: RefCell<Store>,
    /// The lists of which a client has read some pages.
    unfinished: RefCell<BTreeMap<u64, Rest>>,
    lists: Cell<u64>,
    /// The most objects that a page has. A server may return fewer than a client asks for.
    page: usize,
}

impl Server {
    pub fn new(page: usize) -> Self {
        Self { page, ..Self::default() }
    }

    /// Executes a request, except a watch. Returns the change if there was one. `upto` limits what a list shows to
    /// the first changes of the log.
    pub fn execute(&self, asked: &Asked, upto: Option<usize>) -> (Answer, Option<Change>) {
        if let Ask::List { limit, token } = &asked.ask {
            return (self.list(asked, *limit, token.as_deref(), upto), None);
        }
        let mut store = self.store.borrow_mut();
        let before = store.version();
        let Asked { ask, resource, namespace, name, of_status, dry_run, .. } = asked;
        let within = namespace.clone().unwrap_or_default();
        let key = Key::new(&within, name.clone().unwrap_or_default());
        let outcome = match ask.clone() {
            Ask::Get => match store.get(resource, &key) {
                Some(object) => Ok(object.clone()),
                None => Err(Refusal::absent(&key.name)),
            },
            Ask::List { .. } | Ask::Watch { .. } => unreachable!("they are no calls"),
            Ask::Create(value) => store.create(resource, &within, value, *dry_run),
            Ask::Replace(value) => {
                store.update(resource, &key, *of_status, *dry_run, |object| *object = value)
            }
            Ask::Patch(patch) => {
                store.update(resource, &key, *of_status, *dry_run, |object| merge(object, patch))
            }
            Ask::Delete(only) => store.delete(resource, &key, &only),
        };
        let change = (store.version() != before).then(|| store.log(resource).last().cloned());
        let answer = match outcome {
            Ok(object) => Answer::Object(object),
            Err(refusal) => Answer::Refused(refusal),
        };
        (answer, change.flatten())
    }

    fn list(
        &self,
        asked: &Asked,
        limit: Option<usize>,
        token: Option<&str>,
        upto: Option<usize>,
    ) -> Answer {
        let (mut objects, version) = match token {
            None => self.first_page(asked, upto),
            Some(token) => {
                let known = token
                    .parse()
                    .ok()
                    .and_then(|token| self.unfinished.borrow_mut().remove(&token));
                match known {
                    Some(rest) => rest,
                    None => return Answer::Refused(Refusal::expired()),
                }
            }
        };
        let most = limit.unwrap_or(usize::MAX).min(self.page);
        let rest = objects.split_off(objects.len().min(most));
        let mut metadata = serde_json::json!({ "resourceVersion": version.to_string() });
        if !rest.is_empty() {
            let token = self.lists.replace(self.lists.get() + 1);
            metadata["continue"] = token.to_string().into();
            metadata["remainingItemCount"] = rest.len().into();
            self.unfinished.borrow_mut().insert(token, (rest, version));
        }
        let (kind, api) = kind(asked.resource);
        let head = format!(
            "{{\"kind\":\"{kind}List\",\"apiVersion\":\"{api}\",\"metadata\":{metadata},\"items\":["
        );
        let mut text = head.into_bytes();
        for (n, object) in objects.iter().enumerate() {
            if n > 0 {
                text.push(b',');
            }
            text.extend_from_slice(&object.text);
        }
        text.extend_from_slice(b"]}");
        Answer::Text(text.into())
    }

    fn first_page(&self, asked: &Asked, upto: Option<usize>) -> Rest {
        let store = self.store.borrow();
        let namespace = asked.namespace.as_deref();
        let shown = |object: &Rc<Stored>| {
            namespace.is_none_or(|it| object.key().namespace == it)
                && asked.selector.selects(object)
        };
        match upto {
            None => {
                let objects = store.all(asked.resource).filter(|it| shown(it)).cloned().collect();
                (objects, store.version())
            }
            Some(upto) => {
                let last = store.log(asked.resource)[..upto].last();
                let version = last.map_or(1, |change| change.version);
                let objects = store.as_of(asked.resource, upto);
                (objects.into_iter().filter(shown).collect(), version)
            }
        }
    }

    /// Forgets the lists that clients have not read to their end, as after a restart.
    pub fn forget_lists(&self) {
        self.unfinished.borrow_mut().clear();
    }
}
