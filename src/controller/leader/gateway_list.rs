//! The list of gateways in the election's Lease (G5): `[{"pod": "<uid>", "epoch": "17"}]`.
//!
//! The epoch is a string, because many readers of JSON round numbers above 2^53.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use beatkeeper_core::carriers::frames::Incarnation;

/// Why an annotation is no list.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    /// It is no JSON, or JSON of another shape.
    #[error("it is not a list of objects with pod and epoch: {0}")]
    Shape(#[from] serde_json::Error),
    /// An epoch is no number.
    #[error("the epoch {epoch:?} of Pod {pod} is not a number of 64 bits")]
    Epoch {
        pod: String,
        epoch: String,
        #[source]
        source: std::num::ParseIntError,
    },
}

#[derive(Serialize, Deserialize)]
struct Listed {
    pod: String,
    epoch: String,
}

/// Renders a list. One without gateways is a list, too.
pub(crate) fn render(gateways: &BTreeSet<Incarnation>) -> String {
    let listed = gateways.iter();
    let listed = listed.map(|Incarnation { pod, epoch }| Listed {
        pod: pod.to_string(),
        epoch: epoch.to_string(),
    });
    let listed: Vec<Listed> = listed.collect();
    serde_json::to_string(&listed).expect("strings can be written as JSON")
}

/// Reads a list.
///
/// # Errors
/// [`ListError`]. A list that can be read only in part counts as none: a gateway that is left out would pass for one that
/// has accepted no beats.
pub(crate) fn parse(annotation: &str) -> Result<BTreeSet<Incarnation>, ListError> {
    let listed: Vec<Listed> = serde_json::from_str(annotation)?;
    let incarnation = |Listed { pod, epoch }: Listed| match epoch.parse() {
        Ok(epoch) => Ok(Incarnation { pod: pod.into(), epoch }),
        Err(source) => Err(ListError::Epoch { pod, epoch, source }),
    };
    listed.into_iter().map(incarnation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateways() -> BTreeSet<Incarnation> {
        let gateway = |pod: &str, epoch| Incarnation { pod: pod.into(), epoch };
        [gateway("a", u64::MAX), gateway("a", 1), gateway("b", 0)].into()
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        assert_eq!(parse(&render(&gateways())).expect("a list"), gateways());
        assert_eq!(render(&BTreeSet::new()), "[]");
        assert_eq!(parse("[]").expect("a list"), BTreeSet::new());
        let two =
            r#"[{"pod":"a","epoch":"18446744073709551615"},{"epoch":"2","pod":"b","more":1}]"#;
        assert_eq!(parse(two).expect("a list").len(), 2);
    }

    #[test]
    fn a_list_that_can_be_read_only_in_part_is_none() {
        for broken in [
            "",
            "{}",
            r#"[{"pod":"a"}]"#,
            r#"[{"pod":"a","epoch":1}]"#,
            r#"[{"pod":"a","epoch":"1"},{"pod":"b","epoch":"-1"}]"#,
            r#"[{"pod":"a","epoch":"1"},{"pod":"b","epoch":"18446744073709551616"}]"#,
            r#"[{"pod":"a","epoch":"1"}"#,
        ] {
            assert!(parse(broken).is_err(), "{broken}");
        }
        let error = parse(r#"[{"pod":"b","epoch":"x"}]"#).expect_err("no number");
        assert_eq!(error.to_string(), "the epoch \"x\" of Pod b is not a number of 64 bits");
    }
}
