//! `top` follows instances that beat and one that stops.

use serde_json::Value;

use crate::stage::{ANN, Stage};

#[tokio::test]
async fn the_table_shows_how_much_instances_beat_and_which_one_is_late() {
    let mut stage = Stage::new("top").await;
    stage.declare("greeter", "8s", "2s");
    stage.agent("vm-1", "192.0.2.11");
    stage.agent("vm-2", "192.0.2.12");
    let table = stage.until(&["top"], "both beat in time, every two seconds", |table| {
        table.contains("greeter  2          2      0        1.00")
    });
    assert!(
        table.starts_with("NAME     INSTANCES  READY  OVERDUE  BEATS(/s)  NEXT DEADLINE\n"),
        "{table}"
    );
    stage.kill("vm-2");
    let json = stage.until(&["top", "-o", "json"], "vm-2 is late", |json| {
        let report: Value = serde_json::from_str(json).unwrap_or_default();
        // On a busy machine both may be late.
        report["items"][0]["overdue"] != 0 && report["items"][0]["nextInstance"] == "vm-2"
    });
    let report: Value = serde_json::from_str(&json).unwrap();
    let item = &report["items"][0];
    // It is overdue after five of its eight seconds.
    assert!(item["nextDeadlineSeconds"].as_f64().unwrap() <= 3.0, "{json}");
    stage.until(&["top", "--sum", "--sort-by", "overdue"], "vm-2 is pruned", |table| {
        table.contains("greeter  2          1      0")
            && table.contains("\nSUM      2          1      0")
    });
}

#[tokio::test]
async fn without_the_right_to_read_leases_nothing_is_measured() {
    let stage = Stage::without_operator("top-rights").await;
    stage.register("greeter", "");
    let rule = "{ apiGroups: [beatkeeper.dev], resources: [serviceregistrations], verbs: [get, list, watch] }";
    stage.grant(ANN, &[rule]);
    let printed = crate::stage::eventually("the role applies", || {
        match stage.plugin(&["top", "--as", "ann"]) {
            printed if printed.err.contains("cannot read Leases") => Ok(printed),
            printed => Err(format!("{printed:?}")),
        }
    });
    assert_eq!(printed.code, 1);
    assert!(printed.err.contains("cannot list resource \"leases\""), "{printed:?}");
}
