//! The live view, without a terminal and without a cluster.

use std::time::{Duration, Instant};

use beatkeeper_core::{objects::decode, vocabulary::key::Key};
use jiff::{SignedDuration, Timestamp};
use kubectl_beatkeeper::{
    commands::{get::body::Tree, top::body::Table},
    model::{
        change::{Change, Object},
        kind::Kind,
        lease::SeenLease,
        live::Live,
        load::SortBy,
    },
    render::{changes::Told, text::Paint},
    view::{
        body::Body,
        page::{Action, Health, Page},
    },
};
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use serde_json::{Value, json};

use crate::objects::{lease, listed, now, registration, slice};

pub fn seen(lease: &Value) -> Object {
    Object::Lease(Box::new(decode::read::<SeenLease>(lease.to_string().as_bytes()).unwrap()))
}

pub fn registered(object: Value) -> Object {
    Object::Registration(Box::new(serde_json::from_value(object).unwrap()))
}

pub fn sliced(object: Value) -> Object {
    Object::Slice(Box::new(serde_json::from_value(object).unwrap()))
}

/// A view of a registration with these Leases, all listed.
fn live(object: Value, leases: &[Value], addresses: &[(&str, bool)]) -> Live {
    let mut live = Live::of(None);
    let mut listed = vec![(Kind::ServiceRegistration, vec![registered(object)])];
    listed.push((Kind::Lease, leases.iter().map(seen).collect()));
    let slice = slice("greeter-x7k2p", "beatkeeper.dev", addresses);
    listed.push((Kind::EndpointSlice, vec![sliced(slice)]));
    listed.extend([Kind::Pod, Kind::Service, Kind::Endpoints].map(|kind| (kind, Vec::new())));
    for (kind, objects) in listed {
        live.apply(Change::ListBegins(kind), now());
        objects.into_iter().for_each(|object| live.apply(Change::Listed(object), now()));
        live.apply(Change::ListEnds(kind), now());
    }
    live.refresh(now(), true);
    live
}

pub fn two() -> Live {
    let instances =
        json!([listed("vm-1", "Ready", "Beating", ""), listed("vm-2", "Ready", "Beating", "")]);
    let leases = [lease("vm-1", "192.0.2.11", 1), lease("vm-2", "192.0.2.12", 1)];
    let published = [("192.0.2.11", true), ("192.0.2.12", true)];
    live(registration("greeter", instances), &leases, &published)
}

fn drawn<B: Body>(page: &mut Page<B>, live: &Live, size: (u16, u16)) -> Vec<String> {
    drawn_at(page, live, size, now())
}

fn drawn_at<B: Body>(
    page: &mut Page<B>,
    live: &Live,
    size: (u16, u16),
    at: Timestamp,
) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| page.draw(frame, live.picture(), Health::Live, at)).unwrap();
    let buffer = terminal.backend().buffer();
    let row =
        |y: u16| -> String { (0..size.0).map(|x| buffer[(x, y)].symbol().to_owned()).collect() };
    (0..size.1).map(|y| row(y).trim_end().to_owned()).collect()
}

#[test]
fn a_beat_changes_its_instance_alone_and_has_nothing_laid_out_again() {
    let mut live = two();
    let mut beat = lease("vm-1", "192.0.2.11", -9);
    beat["metadata"]["resourceVersion"] = "2".into();
    let later = now() + SignedDuration::from_secs(9);
    live.apply(Change::Changed(seen(&beat)), later);
    assert!(!live.is_dirty(), "a beat is no reason to lay the rows out again");
    let view = &live.picture().registrations[0];
    assert_eq!(view.instance("vm-1").unwrap().silent(later), Some(Duration::ZERO));
    assert_eq!(view.instance("vm-2").unwrap().silent(later), Some(Duration::from_secs(10)));
}

#[test]
fn a_death_and_a_departure_are_a_line_each_and_beats_are_none() {
    let mut live = two();
    let mut told = Told::default();
    let lines = |told: &mut Told, live: &Live| -> Vec<String> {
        told.changes(live.picture(), now()).iter().map(|line| line.plain()).collect()
    };
    assert_eq!(
        lines(&mut told, &live),
        [
            "12:00:00 ✗ shop/greeter Published: 2 of 2 instances ready",
            "12:00:00 ● shop/greeter vm-1 Ready (Beating)",
            "12:00:00 ● shop/greeter vm-2 Ready (Beating)",
        ]
    );
    live.apply(Change::Changed(seen(&lease("vm-1", "192.0.2.11", 0))), now());
    live.refresh(now(), true);
    assert_eq!(lines(&mut told, &live), [""; 0]);
    let instances = json!([
        listed("vm-2", "Expired", "TTLPassed", "no beat"),
        listed("vm-1", "Ready", "Beating", "")
    ]);
    live.apply(Change::Changed(registered(registration("greeter", instances))), now());
    live.apply(
        Change::Changed(sliced(slice("greeter-x7k2p", "beatkeeper.dev", &[("192.0.2.11", true)]))),
        now(),
    );
    live.refresh(now(), false);
    assert_eq!(
        lines(&mut told, &live),
        [
            "12:00:00 ✗ shop/greeter Published: 1 of 2 instances ready, 1 expired",
            "12:00:00 ✗ shop/greeter vm-2 Expired (TTLPassed): no beat",
        ]
    );
    live.apply(Change::Gone(Kind::ServiceRegistration, Key::new("shop", "greeter")), now());
    live.refresh(now(), false);
    assert_eq!(lines(&mut told, &live).last().unwrap(), "12:00:00 - shop/greeter: gone");
}

#[test]
fn a_list_after_a_broken_watch_removes_what_has_gone_meanwhile() {
    let mut live = two();
    live.apply(Change::Failed(Kind::Lease, "connection refused".to_owned()), now());
    assert_eq!(live.failing().next(), Some((Kind::Lease, "connection refused")));
    live.apply(Change::ListBegins(Kind::Lease), now());
    live.apply(Change::Listed(seen(&lease("vm-1", "192.0.2.11", 1))), now());
    live.apply(Change::ListEnds(Kind::Lease), now());
    assert_eq!(live.failing().next(), None);
    live.refresh(now(), true);
    let view = &live.picture().registrations[0];
    assert_eq!(view.instance("vm-2").unwrap().lease, None, "only the status still lists it");
}

#[test]
fn keys_scroll_filter_and_quit() {
    let mut live = two();
    live.refresh(now(), true);
    let mut page = Page::of(Tree::new(false), Paint::Plain);
    let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
    let rows = drawn(&mut page, &live, (100, 6));
    assert!(rows[0].starts_with("✗ shop/greeter: 2 of 2"), "{rows:#?}");
    assert!(rows[5].starts_with("live  rows 1–5 of "), "{rows:#?}");
    assert_eq!(page.key(key(KeyCode::Char('G'))), Some(Action::Redraw));
    let rows = drawn(&mut page, &live, (100, 6));
    assert!(rows[4].contains("EndpointSlice greeter-x7k2p"), "{rows:#?}");
    page.key(key(KeyCode::Char('p')));
    let rows = drawn(&mut page, &live, (100, 12));
    assert!(!rows.iter().any(|row| row.contains("vm-1")), "{rows:#?}");
    assert_eq!(page.key(key(KeyCode::Char('x'))), None);
    assert_eq!(page.key(key(KeyCode::Char('q'))), Some(Action::Quit));
}

#[test]
fn the_table_of_loads_follows_the_time_keeps_its_heading_and_is_sorted_by_a_key() {
    let mut live = two();
    let instances = json!([listed("web-1", "Ready", "Beating", "")]);
    live.apply(Change::Changed(registered(registration("another", instances))), now());
    live.refresh(now(), true);
    let table = Table::new(SortBy::Name, true, true);
    let mut page = Page::of(table, Paint::Plain);
    let names = |rows: &[String]| -> Vec<String> {
        let name = |row: &String| row.split_whitespace().nth(1).unwrap_or_default().to_owned();
        rows.iter().map(name).collect()
    };
    let rows = drawn(&mut page, &live, (100, 5));
    assert_eq!(names(&rows)[..3], ["NAME", "another", "greeter"], "{rows:#?}");
    assert!(rows[3].starts_with("SUM ") && rows[2].ends_with(" 29s vm-1"), "{rows:#?}");
    assert!(rows[4].contains("s sort (by name)"), "{rows:#?}");
    let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
    assert_eq!(page.key(key(KeyCode::Char('s'))), Some(Action::Redraw));
    let rows = drawn(&mut page, &live, (100, 5));
    assert_eq!(names(&rows)[..3], ["NAME", "greeter", "another"], "{rows:#?}");
    assert!(rows[4].contains("s sort (by beats)"), "{rows:#?}");
    // Nothing has changed but the time.
    let later = now() + Duration::from_secs(7);
    let rows = drawn_at(&mut page, &live, (100, 5), later);
    assert!(rows[1].ends_with(" 22s vm-1"), "{rows:#?}");
    drawn(&mut page, &live, (100, 3));
    page.key(key(KeyCode::End));
    let rows = drawn(&mut page, &live, (100, 3));
    assert_eq!(names(&rows)[0], "NAME", "{rows:#?}");
    assert!(rows[1].starts_with("SUM "), "{rows:#?}");
}

/// Prints what docs/kubectl.md says. `cargo test --release --workspace --test rendered ten_thousand -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn ten_thousand_instances_cost_milliseconds_a_frame() {
    const COUNT: usize = 10_000;
    let address = |n: usize| format!("198.18.{}.{}", n / 250, n % 250 + 1);
    let leases: Vec<Value> =
        (0..COUNT).map(|n| lease(&format!("vm-{n:05}"), &address(n), 1)).collect();
    let addresses: Vec<String> = (0..COUNT).map(address).collect();
    let published: Vec<(&str, bool)> = addresses.iter().map(|it| (it.as_str(), true)).collect();
    let before = resident();
    let mut live = live(registration("greeter", json!([])), &leases, &published);
    println!("resident memory of the picture: {} MiB", (resident() - before) / 1024);
    let mut page = Page::of(Tree::new(false), Paint::Colours);
    let mut terminal = Terminal::new(TestBackend::new(160, 50)).unwrap();
    let mut draw = |live: &Live, page: &mut Page<Tree>| {
        let begun = Instant::now();
        terminal.draw(|frame| page.draw(frame, live.picture(), Health::Live, now())).unwrap();
        begun.elapsed()
    };
    draw(&live, &mut page);
    page.key(KeyEvent::new(KeyCode::End, KeyModifiers::NONE));
    let frames: Vec<Duration> = (0..200).map(|_| draw(&live, &mut page)).collect();
    println!("a frame: {:?}", frames.iter().sum::<Duration>() / 200);
    let begun = Instant::now();
    live.refresh(now(), true);
    println!("judging all again: {:?}", begun.elapsed());
    page.make_stale();
    println!("a frame with a new layout: {:?}", draw(&live, &mut page));
    let begun = Instant::now();
    for lease in leases.iter().take(1000) {
        live.apply(Change::Changed(seen(lease)), now());
    }
    println!("a beat: {:?}", begun.elapsed() / 1000);
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
