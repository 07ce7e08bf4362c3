//! Address families.

use serde_json::json;

use crate::support::{Fixture, Published, observer::set};

fn families(published: &Published) -> Vec<(String, usize)> {
    let mut families: Vec<_> = published
        .slices
        .iter()
        .map(|slice| (slice.address_type.clone(), slice.endpoints.len()))
        .collect();
    families.sort();
    families
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_ours_publishes_both_families_in_slices_and_the_primary_one_in_endpoints() {
    let fixture = Fixture::new(
        "dual-stack",
        json!({ "instances": [
            { "name": "vm-1", "addresses": ["192.0.2.1", "2001:db8::1"] },
            { "name": "vm-2", "addresses": ["2001:db8::2"] },
        ]}),
    )
    .await;
    fixture.join("vm-1", "").await;
    fixture.join("vm-2", "").await;
    fixture.join("vm-3", "192.0.2.3, 2001:DB8:0::3").await;
    fixture.join_pod("greeter-1", &["10.88.0.1", "fd00:88::1"], json!({})).await;

    let published = fixture
        .publishes_ports(&[
            ("192.0.2.1", "grpc", 8080),
            ("192.0.2.3", "grpc", 8080),
            ("10.88.0.1", "grpc", 8080),
            ("2001:db8::1", "grpc", 8080),
            ("2001:db8::2", "grpc", 8080),
            ("2001:db8::3", "grpc", 8080),
            ("fd00:88::1", "grpc", 8080),
        ])
        .await;
    assert_eq!(families(&published), [("IPv4".to_owned(), 3), ("IPv6".to_owned(), 4)]);
    let primary = set(&["192.0.2.1", "192.0.2.3", "10.88.0.1"]);
    fixture.publishes("Endpoints have IPv4", |now| now.in_endpoints() == primary).await;
    let mut status = fixture.status("greeter-1", "Ready", "Beating").await;
    status.addresses.sort();
    assert_eq!(status.addresses, ["10.88.0.1", "fd00:88::1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_one_family_publishes_that_one_and_names_the_instances_left_out() {
    let one = json!({ "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"] });
    let fixture = Fixture::beside_service("one-family", one, json!({})).await;
    fixture.join("both", "192.0.2.1,2001:db8::1").await;
    fixture.join("old", "192.0.2.2").await;

    let published = fixture.published_as_ready("greeter", &["2001:db8::1"]).await;
    assert_eq!(families(&published), [("IPv6".to_owned(), 1)]);
    let old = fixture.status("old", "Rejected", "AddressFamilyMismatch").await;
    assert_eq!(
        old.message,
        "its addresses (192.0.2.2) are of no family that the Service has (IPv6)"
    );

    // The Service gets a second family. Endpoints keep the first one.
    let both =
        json!({ "spec": { "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"] } });
    fixture.patch::<k8s_openapi::api::core::v1::Service>("greeter", both).await;
    let published = fixture
        .publishes_ports(&[
            ("2001:db8::1", "grpc", 8080),
            ("192.0.2.1", "grpc", 8080),
            ("192.0.2.2", "grpc", 8080),
        ])
        .await;
    assert_eq!(published.in_endpoints(), set(&["2001:db8::1"]));
    fixture.status("old", "Ready", "Beating").await;
}
