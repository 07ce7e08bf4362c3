//! What the page of the console is told, without a browser and without a cluster.

use jiff::{SignedDuration, Timestamp};
use kubectl_beatkeeper::{
    console::teller::Teller,
    model::{change::Change, live::Live},
};
use serde_json::{Value, json};

use crate::{
    live::{registered, seen, two},
    objects::{lease, listed, now, registration},
};

fn teller() -> Teller {
    Teller::new(Some("kind".to_owned()), "namespace shop".to_owned(), false)
}

/// What has changed, without the beats that only show that the console lives.
fn told(teller: &mut Teller, live: &Live, judged: bool, at: Timestamp) -> Vec<Value> {
    let messages = teller.changes(live, judged, at);
    let values = messages.iter().map(|message| serde_json::to_value(message).unwrap());
    values.filter(|it| it["kind"] != "beats" || it["beats"] != json!([])).collect()
}

fn kinds(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["kind"].as_str().unwrap()).collect()
}

fn later(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

#[test]
fn a_page_is_told_everything_once_and_then_beats_alone() {
    let (mut live, mut teller) = (two(), teller());
    let first = told(&mut teller, &live, true, now());
    assert_eq!(kinds(&first), ["health", "registration"]);
    assert_eq!(first[1]["key"], "shop/greeter");
    assert_eq!(first[1]["cells"][1]["name"], "vm-2");
    let mut beat = lease("vm-2", "192.0.2.12", -9);
    beat["metadata"]["resourceVersion"] = "2".into();
    live.apply(Change::Changed(seen(&beat)), later(9));
    let beats = told(&mut teller, &live, false, later(9));
    let at = later(9).as_millisecond();
    assert_eq!(
        beats,
        [json!({ "kind": "beats", "now": at, "beats": [["shop/greeter", [[1, at]]]] })]
    );
    let nothing: [Value; 0] = [];
    assert_eq!(told(&mut teller, &live, true, later(9)), nothing);
    let all = teller.everything(later(9));
    let all: Vec<Value> = all.iter().map(|it| serde_json::to_value(it).unwrap()).collect();
    assert_eq!(kinds(&all), ["hello", "health", "registration", "marks"]);
    assert_eq!(all[2]["cells"][1]["beat"], at, "a page that connects later is told the last beat");
}

#[test]
fn a_death_is_told_with_its_cell_alone_and_is_a_mark() {
    let (mut live, mut teller) = (two(), teller());
    told(&mut teller, &live, true, now());
    let dead = json!([
        listed("vm-2", "Expired", "TTLPassed", "no beat"),
        listed("vm-1", "Ready", "Beating", "")
    ]);
    live.apply(Change::Changed(registered(registration("greeter", dead))), later(31));
    live.refresh(later(31), false);
    let messages = told(&mut teller, &live, true, later(31));
    assert_eq!(kinds(&messages), ["changed", "marks"]);
    let cells = messages[0]["cells"].as_array().unwrap();
    assert_eq!(
        (cells.len(), &cells[0][0], &cells[0][1]["state"]),
        (1, &1.into(), &"Expired".into())
    );
    assert_eq!(messages[0]["row"]["counts"], json!([["Ready", 1], ["Expired", 1]]));
    let mark =
        json!({ "at": later(31).as_millisecond(), "what": "pruned", "count": 1, "name": "vm-2" });
    assert_eq!(messages[1]["marks"], json!([mark]));
}

#[test]
fn an_instance_that_joins_changes_the_places_so_that_all_cells_are_told() {
    let (mut live, mut teller) = (two(), teller());
    told(&mut teller, &live, true, now());
    live.apply(Change::Changed(seen(&lease("vm-0", "192.0.2.10", 0))), now());
    live.refresh(now(), false);
    let messages = told(&mut teller, &live, true, now());
    assert_eq!(messages[0]["kind"], "registration");
    assert_eq!(messages[0]["cells"].as_array().unwrap().len(), 3);
}

#[test]
fn a_page_hears_at_least_once_a_second_that_the_console_lives() {
    let (live, mut teller) = (two(), teller());
    let heard = |teller: &mut Teller, at| {
        teller
            .changes(&live, false, at)
            .iter()
            .filter(|it| matches!(it, kubectl_beatkeeper::console::wire::Message::Beats { .. }))
            .count()
    };
    assert_eq!(heard(&mut teller, now()), 1);
    assert_eq!(heard(&mut teller, now() + SignedDuration::from_millis(900)), 0);
    assert_eq!(heard(&mut teller, later(1)), 1);
}
