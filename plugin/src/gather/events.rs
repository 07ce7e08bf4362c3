//! Reads the events of a registration.

use beatkeeper_core::{objects::decode::Keep, vocabulary::key::Key};
use k8s_openapi::api::core::v1::Event;
use kube::{Client, Error, Resource, api::ListParams, core::Request};
use serde::de::DeserializeSeed;

use crate::model::event::{KEEP, Transition};

/// The most events that are read. The API server keeps them for an hour, and the operator sends few.
const MOST: u32 = 1000;

/// What is kept of a list of events.
const LIST: Keep = Keep::Fields(&[("items", Keep::Each(&KEEP))]);

/// Reads the events of a registration.
///
/// # Errors
/// If they cannot be read.
pub async fn of(client: &Client, registration: &Key) -> kube::Result<Vec<Transition>> {
    let params = ListParams::default()
        .fields(&format!(
            "involvedObject.kind=ServiceRegistration,involvedObject.name={}",
            registration.name
        ))
        .limit(MOST);
    let path = Event::url_path(&(), Some(&registration.namespace));
    let request = Request::new(path).list(&params).map_err(Error::BuildRequest)?;
    let text = client.request_text(request).await?;
    let list = LIST.deserialize(&mut serde_json::Deserializer::from_str(&text));
    let list = list.map_err(Error::SerdeError)?;
    let events = list["items"].as_array().into_iter().flatten();
    Ok(events.filter_map(|event| Transition::read(event, &registration.name)).collect())
}
