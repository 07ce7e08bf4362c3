//! With whose rights the console reads.

use std::sync::Arc;

use beatkeeper_core::vocabulary::key::Key;
use futures::{StreamExt, join, stream::BoxStream};
use http::HeaderMap;

use super::{feed::Feed, refused::Refused, tokens::Tokens};
use crate::{
    gather::{events, scope::Scope},
    leader::standing::Asker,
    render::why::WhyReport,
    session::Session,
};

/// With whose rights the console reads.
pub enum Readers {
    /// With those of the user who has started it.
    Own {
        /// The connection of this user.
        session: Session,
        /// What this user sees.
        feed: Feed,
        /// Asks the leader as this user.
        leader: Box<Asker>,
    },
    /// With those of the token of each request.
    Tokens(Tokens),
}

impl Readers {
    /// All that is known, and then each change. A query such as `namespace=shop` chooses what is told to a reader with a
    /// token; without one it is all namespaces.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn stream(
        &self,
        headers: &HeaderMap,
        query: &str,
    ) -> Result<BoxStream<'static, Arc<str>>, Refused> {
        match self {
            Self::Own { feed, .. } => {
                let subscription = feed.subscribe().await.ok_or(Refused::NoAnswer)?;
                Ok(subscription.messages().boxed())
            }
            Self::Tokens(tokens) => tokens.stream(headers, scope(query)?).await,
        }
    }

    /// The argument about an instance.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn why(
        &self,
        headers: &HeaderMap,
        key: Key,
        instance: String,
    ) -> Result<WhyReport, Refused> {
        // They become parts of paths.
        if !is_label(&key.namespace) || !key.name.split('.').all(is_label) {
            return Err(Refused::NoInstance);
        }
        match self {
            Self::Own { session, feed, leader } => {
                if !feed.knows(&key, &instance).await {
                    return Err(Refused::NoInstance);
                }
                let (events, leader) =
                    join!(events::of(&session.client, &key), leader.ask(&key, &instance));
                // Without the right to read events, the argument lacks its history alone.
                let events = events.unwrap_or_default();
                feed.why(key, instance, events, leader).await.ok_or(Refused::NoInstance)
            }
            Self::Tokens(tokens) => tokens.why(headers, &key, &instance).await,
        }
    }
}

/// The scope that a query names.
fn scope(query: &str) -> Result<Scope, Refused> {
    let named = query.split('&').find_map(|part| part.strip_prefix("namespace="));
    match named.unwrap_or_default() {
        "" => Ok(Scope::All),
        name if is_label(name) => Ok(Scope::Namespace(name.to_owned())),
        _ => Err(Refused::NoNamespace),
    }
}

/// Whether a text is a label as RFC 1123 has it, in small letters.
fn is_label(text: &str) -> bool {
    let inner = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.bytes().all(|it| inner(it) || it == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_a_namespace_or_none_and_nothing_that_leads_to_another_path() {
        assert_eq!(scope(""), Ok(Scope::All));
        assert_eq!(scope("namespace="), Ok(Scope::All));
        assert_eq!(scope("a=b&namespace=shop-1"), Ok(Scope::Namespace("shop-1".to_owned())));
        for wrong in
            ["..", "a/b", "a%2Fb", "Shop", "-a", "a-", "a.b", &"a".repeat(64), "ä", "a?b", " "]
        {
            assert_eq!(scope(&format!("namespace={wrong}")), Err(Refused::NoNamespace), "{wrong}");
        }
    }
}
