//! Parts of a control plane are killed, stopped and suspended, and come back.
//!
//! The tests take turns at one control plane, and leave it whole.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use beatkeeper_cluster::{ControlPlane, Options, Part};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use tokio::time::timeout;

async fn turn() -> MutexGuard<'static, ControlPlane> {
    static PLANE: OnceCell<Mutex<ControlPlane>> = OnceCell::const_new();
    let start = async || Mutex::new(ControlPlane::start(Options::default()).await.unwrap());
    PLANE.get_or_init(start).await.lock().await
}

fn namespaces(client: Client) -> Api<Namespace> {
    Api::all(client)
}

#[tokio::test]
async fn an_api_server_comes_back_on_the_same_port_after_a_kill() {
    let plane = turn().await;
    let url = plane.url(Part::ApiServer);
    let client = plane.admin_client().unwrap();
    let namespace = plane.namespace("kept").await.unwrap();

    plane.api_server().kill().await.unwrap();
    let refused = namespaces(client.clone()).get(&namespace).await;
    refused.unwrap_err();
    plane.api_server().start().await.unwrap();

    // The same client, and data that outlived it.
    namespaces(client).get(&namespace).await.unwrap();
    assert_eq!(plane.url(Part::ApiServer), url);
}

#[tokio::test]
async fn etcd_keeps_its_data_through_a_kill() {
    let plane = turn().await;
    let namespace = plane.namespace("kept").await.unwrap();

    plane.etcd().kill().await.unwrap();
    plane.etcd().start().await.unwrap();

    let namespaces = namespaces(plane.admin_client().unwrap());
    // The API server may take a moment to find it again.
    let found = async {
        while namespaces.get(&namespace).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), found).await.unwrap();
}

#[tokio::test]
async fn namespaces_get_their_account_only_while_the_controller_manager_runs() {
    let plane = turn().await;
    plane.controller_manager().stop().await.unwrap();
    assert_eq!(plane.controller_manager().pid().await.unwrap(), None);
    let waiting = timeout(Duration::from_millis(500), plane.namespace("later"));
    waiting.await.unwrap_err();

    plane.controller_manager().start().await.unwrap();
    plane.namespace("served").await.unwrap();
}

#[tokio::test]
async fn a_suspended_api_server_answers_once_it_is_resumed() {
    let plane = turn().await;
    let namespaces = namespaces(plane.admin_client().unwrap());
    namespaces.get("default").await.unwrap();

    plane.api_server().suspend().await.unwrap();
    let get = namespaces.get("default");
    tokio::pin!(get);
    timeout(Duration::from_millis(300), &mut get).await.unwrap_err();
    plane.api_server().resume().await.unwrap();

    get.await.unwrap();
}

#[tokio::test]
async fn a_suspended_part_can_be_stopped_and_a_stopped_one_not_suspended() {
    let plane = turn().await;
    let manager = plane.controller_manager();
    manager.suspend().await.unwrap();
    manager.stop().await.unwrap();
    assert_eq!(manager.pid().await.unwrap(), None);

    let error = manager.suspend().await.unwrap_err();
    assert_eq!(error.to_string(), "kube-controller-manager does not run");

    manager.start().await.unwrap();
}

#[tokio::test]
async fn the_audit_log_goes_on_after_a_restart_of_the_api_server() {
    let plane = turn().await;
    let before = plane.namespace("before").await.unwrap();
    let mark = plane.audit_mark().await.unwrap();
    plane.api_server().kill().await.unwrap();
    // No server answers, and earlier answers can still be read.
    let told = plane.audit(|entry| entry.name == before && entry.verb == "create");
    assert_eq!(told.await.unwrap().len(), 1);
    plane.api_server().start().await.unwrap();
    let after = plane.namespace("after").await.unwrap();

    let entries = plane.audit_since(mark).await.unwrap();

    assert!(entries.iter().any(|entry| entry.name == after));
    assert!(!entries.iter().any(|entry| entry.name == before));
}
