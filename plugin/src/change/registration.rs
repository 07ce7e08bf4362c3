//! Writes of registrations: one is created in a dry run, its dry run ends, and it is deleted.

use beatkeeper_api::{ServiceRegistration, registration::DRY_RUN_ANNOTATION};
use kube::{
    Client, Resource,
    api::{DeleteParams, PostParams, Preconditions},
    core::Request,
};
use serde_json::{Value, json};

use super::write::{MANAGER, patch_object};
use crate::{error::Error, flags::DryRun};

/// A registration that this process has created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid, so that no other registration of this name is changed or deleted.
    pub uid: String,
}

fn right(verb: &str, namespace: &str) -> String {
    format!("{verb} for serviceregistrations.beatkeeper.dev in namespace {namespace}")
}

/// Creates a registration from its manifest. In a dry run there is no uid.
///
/// # Errors
/// [`Error`] of the API server.
pub async fn create(
    client: &Client,
    namespace: &str,
    name: &str,
    manifest: &Value,
    dry_run: DryRun,
) -> Result<Created, Error> {
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    let mut created = Created { uid: String::new(), namespace, name };
    if dry_run == DryRun::Client {
        return Ok(created);
    }
    let params =
        PostParams { dry_run: dry_run == DryRun::Server, field_manager: Some(MANAGER.to_owned()) };
    let path = Request::new(ServiceRegistration::url_path(&(), Some(&created.namespace)));
    let answer = async {
        let request = path.create(&params, manifest.to_string().into_bytes());
        client.request_text(request.map_err(kube::Error::BuildRequest)?).await
    };
    let answer = answer.await.map_err(|error| {
        let Created { namespace, name, .. } = &created;
        let doing = format!("create ServiceRegistration {name} in namespace {namespace}");
        Error::of_write(doing, right("create", namespace), &error)
    })?;
    let object: Value = serde_json::from_str(&answer).unwrap_or_default();
    created.uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    Ok(created)
}

/// Ends the dry run of a registration.
///
/// # Errors
/// [`Error`] of the API server.
pub async fn end_dry_run(client: &Client, created: &Created) -> Result<(), Error> {
    let Created { namespace, name, uid } = created;
    let patch = json!({ "metadata": { "uid": uid, "annotations": { DRY_RUN_ANNOTATION: null } } });
    let patched =
        patch_object::<ServiceRegistration>(client, namespace, name, patch, DryRun::None).await;
    patched.map_err(|error| {
        let doing =
            format!("end the dry run of ServiceRegistration {name} in namespace {namespace}");
        Error::of_write(doing, right("patch", namespace), &error)
    })
}

/// Deletes a registration. It is no error if it is gone already.
///
/// # Errors
/// [`Error`] of the API server.
pub async fn delete(client: &Client, created: &Created) -> Result<(), Error> {
    let Created { namespace, name, uid } = created;
    let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    let path = Request::new(ServiceRegistration::url_path(&(), Some(namespace)));
    let request = path.delete(name, &params).map_err(kube::Error::BuildRequest);
    let deleted = match request {
        Ok(request) => client.request_text(request).await,
        Err(error) => Err(error),
    };
    match deleted {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => {
            let doing = format!("delete ServiceRegistration {name} in namespace {namespace}");
            Err(Error::of_write(doing, right("delete", namespace), &error))
        }
    }
}
