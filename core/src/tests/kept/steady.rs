//! In steady state, nearly all decisions are made of what has changed.

use super::*;

#[test]
fn of_two_hundred_decisions_in_steady_state_all_but_the_first_are_made_of_what_has_changed() {
    let mut course = Course::begin();
    for round in 0..200 {
        let dead = if round < 100 { vec![] } else { vec![3] };
        for event in [Event::AllBeat(dead), Event::Wait(5_000), Event::Decide(None), Event::Read] {
            course.happen(event).expect("the same");
        }
        course.happen(Event::Publish).expect("the same");
    }
    assert_eq!(course.renewed, 199);
    let verdict = course.verdicts.iter().find(|verdict| *verdict.instance == *name(3));
    assert_eq!(verdict.map(|it| it.state.as_str()), Some("Expired"));
}

#[test]
fn decisions_about_instances_that_beat_through_gateways_are_made_of_what_has_changed() {
    let mut course = Course { has_gateways: true, ..Course::begin() };
    course.happen(Event::AllBeat(vec![])).expect("their Leases");
    for round in 0..100 {
        for who in (0..INSTANCES).filter(|who| round < 50 || *who != 3) {
            course.happen(Event::Carry(who, Delivery::Fresh)).expect("a beat");
        }
        for event in [Event::Wait(5_000), Event::Decide(None), Event::Read, Event::Publish] {
            course.happen(event).expect("the same");
        }
    }
    assert_eq!(course.renewed, 99);
    let standing = course.index.unsettled(
        &key("greeter"),
        course.kept.as_ref().expect("it is kept").ticket(),
        BTreeSet::new(),
        at(0),
    );
    let unsettled = standing.expect("it is followed").leases;
    assert_eq!(unsettled, BTreeSet::from([Arc::from("greeter.vm-03")]), "the dead one");
}
