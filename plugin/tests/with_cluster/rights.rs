//! What a user may not read is named, and the rest is shown.

use crate::stage::{ANN, Stage};

const REGISTRATIONS: &str =
    "{ apiGroups: [beatkeeper.dev], resources: [serviceregistrations], verbs: [get, list, watch] }";

#[tokio::test]
async fn a_user_without_rights_is_told_which_one_is_missing() {
    let stage = Stage::without_operator("rights").await;
    stage.register("greeter", "");
    let printed = stage.plugin(&["get", "--as", "ann"]);
    assert_eq!(printed.code, 1);
    assert!(
        printed.err.contains("User \"ann\" cannot list resource \"serviceregistrations\""),
        "{printed:?}"
    );
    assert!(
        printed.err.contains("Ask for a role with the verbs get, list and watch"),
        "{printed:?}"
    );
}

#[tokio::test]
async fn what_may_be_read_is_shown_beside_what_may_not() {
    let stage = Stage::without_operator("some-rights").await;
    stage.register("greeter", "");
    stage.grant(ANN, &[REGISTRATIONS]);
    let tree = stage.until(&["get", "--as", "ann"], "the role applies", |out| !out.is_empty());
    for kind in ["Lease", "Pod", "EndpointSlice", "Service", "Endpoints"] {
        assert!(tree.contains(&format!("? {kind} could not be read")), "{kind}: {tree}");
    }
    assert!(tree.contains("ttl 3s, interval 1s"), "{tree}");
    assert!(
        !tree.contains("Service greeter: not found"),
        "it is not known whether it is there: {tree}"
    );
}

#[tokio::test]
async fn a_group_without_a_user_is_a_mistake() {
    let stage = Stage::without_operator("group").await;
    let printed = stage.plugin(&["get", "--as-group", "staff"]);
    assert_eq!(
        (printed.code, printed.err.as_str()),
        (2, "error: --as-group needs --as, the user of the group\n")
    );
}
