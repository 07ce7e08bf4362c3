//! The place of a field in an object.

use std::fmt;

/// The place of a field, written as `spec.ports[0].targetPort`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
}

impl FieldPath {
    /// The place of a field of the object itself, such as `spec`, or of one below it, such as `spec.ttl`.
    pub fn of(fields: &[&str]) -> Self {
        Self(fields.iter().map(|name| Step::Field((*name).to_owned())).collect())
    }

    /// The place of a field of this object.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        self.with(Step::Field(name.to_owned()))
    }

    /// The place of an element of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// This place, then that of what contains it, up to the object itself.
    pub fn outwards(&self) -> impl Iterator<Item = Self> {
        (0..=self.0.len()).rev().map(|length| Self(self.0[..length].to_vec()))
    }

    /// Whether this place is the other one, or inside of it.
    pub fn is_in(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// This place, seen from the place that contains it.
    #[must_use]
    pub fn below(&self, outer: &Self) -> Self {
        Self(self.0.strip_prefix(&*outer.0).unwrap_or(&self.0).to_vec())
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if n == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_as_the_api_server_writes_it() {
        let path = FieldPath::of(&["spec", "ports"]).index(1).field("name");
        assert_eq!(path.to_string(), "spec.ports[1].name");
        let outwards: Vec<String> = path.outwards().map(|it| it.to_string()).collect();
        assert_eq!(outwards, ["spec.ports[1].name", "spec.ports[1]", "spec.ports", "spec", ""]);
        assert!(path.is_in(&FieldPath::of(&["spec"])) && !path.is_in(&FieldPath::of(&["status"])));
    }
}
