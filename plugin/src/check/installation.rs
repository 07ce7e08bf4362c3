//! The CustomResourceDefinition, and the versions of all parts.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::{facts::Facts, id::Check, verdict::Verdict};

/// The label that the chart gives all objects.
pub const VERSION_LABEL: &str = "app.kubernetes.io/version";

/// The version of this plugin.
const OWN: &str = env!("CARGO_PKG_VERSION");

const UPGRADE: &str = "Upgrade the release with the chart of this plugin's version, or use the plugin of that release";

/// The verdicts on what is installed.
pub fn verdicts(facts: &Facts) -> Vec<Verdict> {
    vec![served(facts), current(facts), versions(facts)]
}

fn served(facts: &Facts) -> Verdict {
    let check = Check::Crd;
    let crd = match &facts.crd {
        Err(why) => return Verdict::unknown(check, why),
        Ok(None) => {
            let remedy =
                "Install the chart, or this CRD alone: beatkeeper crd | kubectl apply -f -";
            return Verdict::failed(check, "there is no such CRD", remedy);
        }
        Ok(Some(crd)) => crd,
    };
    let conditions = crd.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_served = conditions.clone().any(|it| it.type_ == "Established" && it.status == "True");
    let version = crd.spec.versions.iter().find(|it| it.name == beatkeeper_api::VERSION);
    match version {
        Some(version) if version.served && version.storage && is_served => {
            Verdict::fine(check, beatkeeper_api::VERSION)
        }
        Some(version) if version.served && version.storage => {
            let why =
                conditions.filter(|it| it.status == "False").find_map(|it| it.message.clone());
            let what = why.unwrap_or_else(|| "the API server has not established it".to_owned());
            Verdict::failed(
                check,
                what,
                "Look at it: kubectl describe crd serviceregistrations.beatkeeper.dev",
            )
        }
        _ => {
            let what = format!("it does not serve and store {}", beatkeeper_api::VERSION);
            Verdict::failed(check, what, UPGRADE)
        }
    }
}

fn current(facts: &Facts) -> Verdict {
    let check = Check::CrdCurrent;
    match &facts.crd {
        Err(why) => Verdict::unknown(check, why),
        Ok(None) => Verdict::skipped(check, Check::Crd),
        Ok(Some(crd)) if schema(crd) == schema(&beatkeeper_api::crd()) => Verdict::fine(check, ""),
        Ok(Some(_)) => Verdict::failed(check, "its schema is another one", UPGRADE),
    }
}

/// What a version of the CRD says of objects, as JSON.
fn schema(crd: &CustomResourceDefinition) -> Option<serde_json::Value> {
    let version = crd.spec.versions.iter().find(|it| it.name == beatkeeper_api::VERSION)?;
    serde_json::to_value(version.schema.as_ref()?).ok()
}

fn versions(facts: &Facts) -> Verdict {
    let check = Check::Versions;
    let operator = match (&facts.crd, &facts.operator) {
        (Err(why), _) | (_, Err(why)) => return Verdict::unknown(check, why),
        (Ok(None), _) => return Verdict::skipped(check, Check::Crd),
        (_, Ok(None)) => return Verdict::skipped(check, Check::Operator),
        (Ok(Some(_)), Ok(Some(operator))) => operator,
    };
    let crd = facts.crd.as_ref().ok().and_then(|crd| crd.as_ref());
    let crd = crd.and_then(|crd| crd.metadata.labels.as_ref()?.get(VERSION_LABEL));
    let tag = tag(&operator.image);
    let all: BTreeMap<&str, &str> = [
        ("CRD", crd.map(String::as_str)),
        ("chart", operator.version.as_deref()),
        ("image", tag),
        ("plugin", Some(OWN)),
    ]
    .into_iter()
    .filter_map(|(part, version)| Some((part, version?)))
    .collect();
    if all.values().all(|version| *version == OWN) {
        return Verdict::fine(check, OWN);
    }
    let all: Vec<String> =
        all.into_iter().map(|(part, version)| format!("{part} {version}")).collect();
    Verdict::failed(check, format!("they differ: {}", all.join(", ")), UPGRADE)
}

/// The tag of an image, if it is a version. A digest, or a tag of one's own, says nothing.
pub(super) fn tag(image: &str) -> Option<&str> {
    let (_, tag) = image.split('@').next()?.rsplit_once(':')?;
    let is_version = tag.split('.').count() == 3 && tag.starts_with(|c: char| c.is_ascii_digit());
    is_version.then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_of_an_image_counts_only_if_it_is_a_version() {
        for (image, version) in [
            ("ghcr.io/beatkeeper/beatkeeper:0.1.0", Some("0.1.0")),
            ("localhost:5000/beatkeeper", None),
            ("beatkeeper:latest", None),
            ("beatkeeper:0.1.0@sha256:00", Some("0.1.0")),
            ("beatkeeper@sha256:00", None),
        ] {
            assert_eq!(tag(image), version, "{image}");
        }
    }
}
