//! What a browser shows of the console.

use std::{fs, path::PathBuf, process::Command};

use super::{browser::Page, server::Console};
use crate::stage::Stage;

/// An expression for the element of an instance.
fn cell(instance: &str) -> String {
    format!("document.querySelector('[data-name=\"{instance}\"]')")
}

/// Waits until an instance is shown in a state.
pub fn until_shown(page: &mut Page, instance: &str, state: &str) {
    let is_shown = format!(
        "(({{ dataset }}) => dataset.state === '{state}' && !!dataset.shown)({} ?? {{ dataset: {{}} }})",
        cell(instance)
    );
    page.until(&format!("{instance} is {state}"), &is_shown);
}

/// How long after the last beat an instance was painted as expired, by the clock of the page, in milliseconds.
fn painted_after(page: &mut Page, instance: &str) -> i64 {
    until_shown(page, instance, "Expired");
    let times = page.value(&format!("({{ ...{}.dataset }})", cell(instance)));
    let at = |name: &str| times[name].as_str().unwrap().parse::<i64>().unwrap();
    at("shown") - at("beat")
}

#[tokio::test]
async fn a_death_is_shown_within_a_second_of_its_ttl() {
    let Some(mut page) = Page::open("the death in the console") else { return };
    let mut stage = Stage::new("console-death").await;
    stage.register("greeter", "");
    for n in 1..=4 {
        stage.agent(&format!("vm-{n}"), &format!("192.0.2.1{n}"));
    }
    let console = Console::start(&stage, &[]);
    page.look(1280, 800, "light", "no-preference");
    page.visit(&console.url());
    (1..=4).for_each(|n| until_shown(&mut page, &format!("vm-{n}"), "Ready"));
    // Other tests may keep the machine busy. A delay that is the console's own would be there each time.
    let mut painted = Vec::new();
    for instance in ["vm-2", "vm-3", "vm-4"] {
        stage.kill(instance);
        painted.push(painted_after(&mut page, instance));
        if painted.last().is_some_and(|after| *after <= 4000) {
            break;
        }
    }
    println!("painted as expired {painted:?} ms after the last beat; the ttl is 3000 ms");
    assert!(painted.iter().any(|after| (2900..=4000).contains(after)), "{painted:?}");
    let dead = painted.len();
    let row = "document.querySelector('.row').innerText";
    let counts = format!("{} ready · {dead} expired", 4 - dead);
    page.until("it is told in words, too", &format!("{row}.includes('{counts}')"));
    page.until("the reason is told", &format!("{row}.includes('expired (TTLPassed)')"));
    // A further mark would be that of an instance that had left before, and returned.
    let pruned = "document.querySelectorAll('.lane')[1].innerText.replace(/\\D+/g, '')";
    page.until("the deaths are marks", &format!("+{pruned} >= {dead}"));
    until_shown(&mut page, "vm-1", "Ready");
}

/// A kubeconfig with a token that may read one namespace.
async fn reader(stage: &Stage) -> (tempfile::TempDir, PathBuf) {
    let name = &stage.namespace;
    stage.apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: { name: reader }\n");
    stage.grant(
        &format!("{{ kind: ServiceAccount, name: reader, namespace: {name} }}"),
        &[
            "{ apiGroups: [beatkeeper.dev], resources: [serviceregistrations], verbs: [get, list, watch] }",
            "{ apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, list, watch] }",
        ],
    );
    let token = stage.plane.token(name, "reader", None).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    fs::write(&path, stage.plane.kubeconfig_with(&token, None).unwrap()).unwrap();
    (folder, path)
}

fn console_with(kubeconfig: &PathBuf, words: &[&str]) -> Console {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-beatkeeper"));
    command.arg("console").args(words).env("KUBECONFIG", kubeconfig);
    Console::of(command)
}

#[tokio::test]
async fn a_token_for_one_namespace_sees_that_one_only() {
    let Some(mut page) = Page::open("the rights of the console") else { return };
    let (own, other) = (
        Stage::without_operator("console-own").await,
        Stage::without_operator("console-other").await,
    );
    own.register("greeter", "");
    other.register("secret", "");
    let (_folder, kubeconfig) = reader(&own).await;
    let console = console_with(&kubeconfig, &["-n", &own.namespace]);
    page.visit(&console.url());
    page.until("its own is shown", "document.querySelector('.row h3')?.innerText === 'greeter'");
    let text = page.value("document.body.innerText");
    assert!(text.as_str().unwrap().contains("EndpointSlice could not be read"), "{text}");
    assert!(!text.as_str().unwrap().contains("secret"), "{text}");
    for words in [&["-n", &other.namespace][..], &["-A"]] {
        let console = console_with(&kubeconfig, words);
        page.visit(&console.url());
        page.until(
            "it is told what it may not read",
            "document.querySelector('#trouble').innerText.includes('ServiceRegistration could not be read')",
        );
        assert_eq!(page.value("document.querySelectorAll('.row').length"), 0, "{words:?}");
        let answer = console.get(&format!("/why/{}/secret/vm-1", other.namespace));
        assert_eq!(answer.status, 404, "{answer:?}");
    }
}

#[tokio::test]
async fn the_page_is_accessible_in_both_schemes_and_sizes_and_by_keyboard() {
    let Some(mut page) = Page::open("the accessibility of the console") else { return };
    let mut stage = Stage::new("console-axe").await;
    stage.register("greeter", "  instances: [{ name: db, addresses: [192.0.2.30] }]\n");
    for n in 1..=4 {
        stage.agent(&format!("vm-{n}"), &format!("192.0.2.1{n}"));
    }
    stage.agent("vm-5", "203.0.113.3");
    stage.until(&["get"], "they are ready", |tree| tree.contains("4 of 6 instances ready"));
    let annotate = |name: &str, value: &str| {
        stage.kubectl(&["annotate", "lease", &format!("greeter.{name}"), value]);
    };
    annotate("vm-2", "beatkeeper.dev/cordoned=bad disk");
    stage.declare("rehearsed", "10s", "3s");
    stage.kubectl(&["annotate", "sreg", "rehearsed", "beatkeeper.dev/dry-run=true"]);
    stage.kill("vm-1");
    let console = Console::start(&stage, &[]);
    for (width, scheme) in [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")] {
        page.look(width, 800, scheme, "reduce");
        page.visit(&console.url());
        for (instance, state) in
            [("vm-1", "Expired"), ("vm-2", "Cordoned"), ("vm-3", "Ready"), ("vm-5", "Rejected")]
        {
            until_shown(&mut page, instance, state);
        }
        page.until("the banner is shown", "!document.querySelector('#dry-run').hidden");
        let fits = page.value("document.documentElement.scrollWidth <= innerWidth");
        assert_eq!(fits, true, "nothing is wider than {width} pixels");
        assert_eq!(page.axe(), [""; 0], "{width} {scheme}");
        page.value("document.querySelector('.cells [tabindex=\"0\"]').focus()");
        page.press("End");
        let focused = page.value("document.activeElement.getAttribute('aria-label')");
        assert!(focused.as_str().unwrap().starts_with("vm-5; rejected;"), "{focused}");
        page.until("the tip is shown", "document.querySelector('#tip').innerText.includes('vm-5')");
        assert_eq!(page.axe(), [""; 0], "{width} {scheme}, with the tip");
        page.value("document.activeElement.click()");
        page.until("the argument is shown", "document.querySelectorAll('.steps li').length > 5");
        assert_eq!(page.axe(), [""; 0], "{width} {scheme}, with the drawer");
        page.press("Escape");
        let back = page.value("document.activeElement.dataset.name");
        assert_eq!(back, "vm-5", "the focus returns");
    }
}

#[tokio::test]
async fn a_page_whose_console_has_ended_says_that_it_is_out_of_date() {
    let Some(mut page) = Page::open("the end of the console") else { return };
    let stage = Stage::without_operator("console-end").await;
    stage.register("greeter", "");
    let console = Console::start(&stage, &[]);
    page.visit(&console.url());
    let state = "document.querySelector('#connection').innerText";
    page.until("it is live", &format!("{state}.startsWith('live')"));
    drop(console);
    page.until("it says so", &format!("{state}.startsWith('out of date')"));
    assert_eq!(page.value("document.body.classList.contains('stale')"), true);
}
