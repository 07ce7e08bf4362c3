//! `drain`, with an operator and an agent that follow it.

use serde_json::Value;

use crate::stage::Stage;

#[tokio::test]
async fn a_drain_lasts_through_beats_until_its_annotations_are_removed() {
    let mut stage = Stage::new("drain").await;
    stage.register("greeter", "");
    stage.agent("vm-1", "192.0.2.11");
    stage.agent("vm-2", "192.0.2.12");
    stage.until(&["get"], "both are ready", |tree| tree.contains("2 of 2 instances ready"));
    let drain = ["drain", "greeter/vm-1", "--reason", "new kernel"];
    let tried = stage.plugin(&[&drain[..], &["--dry-run=server"]].concat());
    assert_eq!(tried.code, 0, "{tried:?}");
    assert!(tried.out.ends_with("instance greeter/vm-1 draining (server dry run)\n"), "{tried:?}");
    assert_eq!(stage.annotations("greeter.vm-1")["beatkeeper.dev/health"], Value::Null);
    let drained = stage.plugin(&drain);
    assert_eq!(
        (drained.code, &*drained.out),
        (
            0,
            "It is Ready (Beating) and gets new connections.\n1 of 2 ready instances is left: vm-2.\n\
             instance greeter/vm-1 draining\n"
        )
    );
    let renewed = |stage: &Stage| {
        stage.read(&["get", "lease", "greeter.vm-1", "-o", "jsonpath={.spec.renewTime}"])
    };
    stage.until(&["get"], "the operator follows", |tree| tree.contains("▽ Draining  vm-1"));
    let before = renewed(&stage);
    stage.until(&["get"], "it has beaten again", |_| renewed(&stage) != before);
    stage.until(&["get", "-o", "wide"], "its note is shown", |tree| {
        tree.contains("▽ Draining  vm-1") && tree.contains("new kernel")
    });
    let again = stage.plugin(&drain);
    assert_eq!(again.code, 1);
    assert!(again.err.starts_with("error: greeter/vm-1 drains already: new kernel\n"), "{again:?}");
    // The command that it names ends the drain.
    let end =
        again.err.lines().find_map(|line| line.strip_prefix("To end that: kubectl ")).unwrap();
    let words: Vec<&str> = end.split_whitespace().collect();
    stage.kubectl(&words);
    stage.until(&["get"], "both are ready", |tree| tree.contains("2 of 2 instances ready"));
    stage.kill("vm-2");
    stage.until(&["get"], "one is dead", |tree| tree.contains("1 expired"));
    let refused = stage.plugin(&drain);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("too few instances would be left"), "{refused:?}");
}
