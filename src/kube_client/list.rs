//! Lists objects page by page, and splits each page into objects while it arrives.
//!
//! A client that reads a whole page holds all of it as text, and then again as values. Users may create objects of a
//! megabyte each, and 500 of them need more memory than an operator has. Here only one object is held at a time, and
//! the caller keeps the parts that it needs. The number of objects in a page depends on their size, so that the API
//! server does not have to hold much memory either.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    pin::Pin,
    time::Duration,
};

use futures::{AsyncBufRead, AsyncBufReadExt};
use http::Request;
use kube::{
    Client, Error, Resource,
    api::{DeleteParams, ListParams, PostParams},
    core,
};
use serde::{Deserialize, Serialize};

use super::split::Splitter;
use beatkeeper_core::objects::decode::{self, Decode, Decoded};

/// Maximum number of objects in the first page.
const FIRST: u32 = 200;
/// Maximum number of objects in any page.
const MOST: u32 = 4000;
/// Intended size of a page, in bytes.
const PAGE_BYTES: u64 = 4 << 20;
/// Maximum time until the next piece of a page arrives.
const PIECE_WITHIN: Duration = Duration::from_secs(30);

/// A body that is read while it arrives.
pub(super) type Body = Pin<Box<dyn AsyncBufRead + Send>>;

/// The objects of one kind, in one namespace or in all namespaces.
#[derive(Clone)]
pub struct Collection {
    pub(super) client: Client,
    pub(super) path: String,
    pub(super) labels: Option<String>,
    pub(super) metadata_only: bool,
}

impl Collection {
    /// All objects of a kind, in `namespace` or in all namespaces.
    pub fn of<K: Resource<DynamicType = ()>>(client: &Client, namespace: Option<&str>) -> Self {
        let path = K::url_path(&(), namespace);
        Self { client: client.clone(), path, labels: None, metadata_only: false }
    }

    /// Restricts the collection to objects that a label selector matches.
    #[must_use]
    pub fn labelled(self, selector: &str) -> Self {
        Self { labels: Some(selector.to_owned()), ..self }
    }

    /// Requests only the metadata of the objects from the API server.
    #[must_use]
    pub fn metadata_only(self) -> Self {
        Self { metadata_only: true, ..self }
    }

    /// Reads all objects, in the state in which the first page is requested.
    ///
    /// # Errors
    /// An error of the list itself. An error in one object is passed to `take` in place of the object.
    pub async fn each<K: Decode>(&self, mut take: impl FnMut(Decoded<K>)) -> kube::Result<()> {
        let mut cursor = Some(Cursor::default());
        while let Some(at) = cursor {
            let mut page = self.page(&at).await?;
            while let Some(object) = page.next().await? {
                take(object);
            }
            cursor = page.end()?.next;
        }
        Ok(())
    }

    /// Creates an object. The returned object is not read.
    ///
    /// # Errors
    /// If the object is not created.
    pub async fn create<T: Serialize>(&self, object: &T) -> kube::Result<()> {
        let text = serde_json::to_vec(object).map_err(Error::SerdeError)?;
        let request = core::Request::new(&self.path).create(&PostParams::default(), text);
        self.client.request_text(request.map_err(Error::BuildRequest)?).await.map(drop)
    }

    /// Requests a page.
    pub(super) async fn page<K: Decode>(&self, at: &Cursor) -> kube::Result<Page<K>> {
        let params = ListParams {
            label_selector: self.labels.clone(),
            limit: Some(at.limit),
            continue_token: at.token.clone(),
            ..ListParams::default()
        };
        let path = core::Request::new(&self.path);
        let request = match self.metadata_only {
            true => path.list_metadata(&params),
            false => path.list(&params),
        };
        let body = self.send(request.map_err(Error::BuildRequest)?).await?;
        Ok(Page::of(body, at.limit))
    }

    /// Returns the version that the store has reached for this kind. It requests the shortest possible list.
    ///
    /// # Errors
    /// The error of the API server.
    pub async fn version(&self) -> kube::Result<Option<String>> {
        let params = ListParams { limit: Some(1), ..ListParams::default() };
        let request = core::Request::new(&self.path).list_metadata(&params);
        let text = self.client.request_text(request.map_err(Error::BuildRequest)?).await?;
        let List { metadata } = serde_json::from_str(&text).map_err(Error::SerdeError)?;
        Ok(metadata.resource_version.filter(|version| !version.is_empty()))
    }

    /// Deletes an object of the collection. The body of the answer is not needed, so it is not read.
    ///
    /// # Errors
    /// If the object is not deleted.
    pub async fn delete(&self, name: &str, params: &DeleteParams) -> kube::Result<()> {
        let request = core::Request::new(&self.path).delete(name, params);
        self.client.request_text(request.map_err(Error::BuildRequest)?).await.map(drop)
    }

    pub(super) async fn send(&self, request: Request<Vec<u8>>) -> kube::Result<Body> {
        Ok(Box::pin(self.client.request_stream(request).await?))
    }
}

/// Where a page begins, and how many objects it may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    token: Option<String>,
    limit: u32,
}

impl Default for Cursor {
    fn default() -> Self {
        Self { token: None, limit: FIRST }
    }
}

/// A page that is arriving.
pub(super) struct Page<K> {
    body: Body,
    splitter: Splitter,
    items: VecDeque<Decoded<K>>,
    bytes: u64,
    count: u64,
    limit: u32,
}

/// The metadata of a list.
#[derive(Debug)]
pub(super) struct End {
    /// The resourceVersion of the whole list.
    pub(super) version: Option<String>,
    /// Where the next page begins, if there is one.
    pub(super) next: Option<Cursor>,
}

/// A list without its items.
#[derive(Deserialize)]
struct List {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: Option<String>,
    r#continue: Option<String>,
}

impl<K: Decode> Page<K> {
    /// A page with at most `limit` objects.
    pub(super) fn of(body: Body, limit: u32) -> Self {
        let (splitter, items) = (Splitter::default(), VecDeque::new());
        Self { body, splitter, items, bytes: 0, count: 0, limit }
    }

    /// The next object, once it has arrived. None at the end of the page.
    pub(super) async fn next(&mut self) -> kube::Result<Option<Decoded<K>>> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Ok(Some(item));
            }
            let piece = tokio::time::timeout(PIECE_WITHIN, self.body.fill_buf()).await;
            let late = |_| io::Error::new(ErrorKind::TimedOut, "a list does not go on");
            let piece = piece.map_err(late).and_then(|piece| piece).map_err(Error::ReadEvents)?;
            let length = piece.len();
            if length == 0 {
                return Ok(None);
            }
            self.bytes += length as u64;
            let (items, count) = (&mut self.items, &mut self.count);
            self.splitter.feed(piece, |item| {
                *count += 1;
                items.push_back(decode::read(item));
            });
            self.body.consume_unpin(length);
        }
    }

    /// The metadata of the page, after all of it was read.
    pub(super) fn end(self) -> kube::Result<End> {
        let cut_off = || io::Error::new(ErrorKind::UnexpectedEof, "a list ended too early");
        let envelope = self.splitter.finish().ok_or_else(cut_off).map_err(Error::ReadEvents)?;
        let List { metadata } = serde_json::from_slice(&envelope).map_err(Error::SerdeError)?;
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let limit = suitable(self.limit, self.bytes, self.count);
        Ok(End {
            version: some(metadata.resource_version),
            next: some(metadata.r#continue).map(|token| Cursor { token: Some(token), limit }),
        })
    }
}

/// How many objects the next page may have, after a page with `limit`, `bytes` and `count`.
fn suitable(limit: u32, bytes: u64, count: u64) -> u32 {
    let each = bytes / count.max(1);
    let fitting = u32::try_from(PAGE_BYTES / each.max(1)).unwrap_or(MOST);
    // The next objects may be larger, so the number grows slowly.
    fitting.clamp(1, MOST).min(limit.saturating_mul(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_as_large_as_their_objects_allow() {
        assert_eq!(suitable(100, 100_000, 100), 400, "small objects: larger pages, step by step");
        assert_eq!(suitable(400, 400_000, 400), 1600);
        assert_eq!(suitable(4000, 1_000_000, 4000), MOST);
        assert_eq!(suitable(100, 58_100_000, 100), 7, "581 kB each");
        assert_eq!(suitable(7, 150_000_000, 100), 2);
        assert_eq!(suitable(2, 20_000_000, 2), 1, "never none");
        assert_eq!(suitable(1, 1000, 1), 4);
        assert_eq!(suitable(100, 80, 0), 400, "an empty page says nothing");
    }
}
