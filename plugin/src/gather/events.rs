//! Reads the events of a registration.

use beatkeeper_core::{objects::decode::Keep, vocabulary::key::Key};
use k8s_openapi::api::core::v1::Event;
use kube::{Client, Error, Resource, api::ListParams, core::Request};
use serde::de::DeserializeSeed;
use serde_json::Value;

use super::scope::Scope;
use crate::model::event::{KEEP, Transition};

/// The most events that are read of a registration. The API server keeps them for an hour, and the operator sends few.
const MOST: u32 = 1000;
/// The most events that are read of all registrations.
const MOST_OF_ALL: u32 = 10_000;

/// What is kept of a list of events.
const LIST: Keep = Keep::Fields(&[("items", Keep::Each(&KEEP))]);

/// Reads the events of a registration.
///
/// # Errors
/// If they cannot be read.
pub async fn of(client: &Client, registration: &Key) -> kube::Result<Vec<Transition>> {
    let fields = format!(
        "involvedObject.kind=ServiceRegistration,involvedObject.name={}",
        registration.name
    );
    let list = list(client, Some(&registration.namespace), &fields, MOST).await?;
    let events = list["items"].as_array().into_iter().flatten();
    Ok(events.filter_map(|event| Transition::read(event, &registration.name)).collect())
}

/// Reads the events of all registrations in a scope, each with its registration.
///
/// # Errors
/// If they cannot be read.
pub async fn of_all(client: &Client, scope: &Scope) -> kube::Result<Vec<(Key, Transition)>> {
    let fields = "involvedObject.kind=ServiceRegistration";
    let list = list(client, scope.namespace(), fields, MOST_OF_ALL).await?;
    let read = |event: &Value| {
        let involved = &event["involvedObject"];
        let key = Key::new(involved["namespace"].as_str()?, involved["name"].as_str()?);
        let transition = Transition::read(event, &key.name)?;
        Some((key, transition))
    };
    Ok(list["items"].as_array().into_iter().flatten().filter_map(read).collect())
}

async fn list(
    client: &Client,
    namespace: Option<&str>,
    fields: &str,
    most: u32,
) -> kube::Result<Value> {
    let params = ListParams::default().fields(fields).limit(most);
    let request = Request::new(Event::url_path(&(), namespace));
    let request = request.list(&params).map_err(Error::BuildRequest)?;
    let text = client.request_text(request).await?;
    let list = LIST.deserialize(&mut serde_json::Deserializer::from_str(&text));
    list.map_err(Error::SerdeError)
}
