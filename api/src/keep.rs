//! Which parts of an object are kept, and the reader that takes in no others.
//!
//! The API server stores what no type of ours can hold: times beyond the year 9999, managed fields that are nested
//! hundreds of levels deep, whatever a future version brings. A program that reads only what it uses does not fail
//! because of such an object.

use std::{fmt, marker::PhantomData};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// What stands for a time that cannot be read: the latest there is.
const LATEST_TIME: &str = "9999-12-30T00:00:00Z";

/// How deep what is kept may be nested. Nothing that is used is; readers call themselves for each level, and
/// refuse the whole text where it goes deeper than they can.
const DEEPEST: u8 = 32;

/// What is kept of a value. Everything else is skipped while it is read, however large or deep it is.
#[derive(Debug, Clone, Copy)]
pub enum Keep {
    /// All of it.
    All,
    /// A time. The API server stores times that no type of ours can hold; such a one becomes the
    /// latest time there is.
    Time,
    /// These fields of an object.
    Fields(&'static [(&'static str, Keep)]),
    /// The entries of a map whose keys satisfy this.
    Entries(fn(&str) -> bool),
    /// This of each element of a list.
    Each(&'static Keep),
}

impl Keep {
    /// What is kept of a field, if anything is.
    fn field(self, name: &str) -> Option<Self> {
        match self {
            Self::Fields(fields) => {
                fields.iter().find(|(known, _)| *known == name).map(|(_, keep)| *keep)
            }
            Self::Entries(wanted) => wanted(name).then_some(Self::All),
            Self::All => Some(Self::All),
            Self::Time | Self::Each(_) => None,
        }
    }

    /// What is kept of an element of a list, if anything is.
    fn element(self) -> Option<Self> {
        match self {
            Self::All => Some(Self::All),
            Self::Each(keep) => Some(*keep),
            Self::Fields(_) | Self::Entries(_) | Self::Time => None,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Keep {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Part { keep: self, level: 0 }.deserialize(deserializer)
    }
}

impl<'de> DeserializeSeed<'de> for Part {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.level == DEEPEST {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(|_| Value::Null);
        }
        let kept = deserializer.deserialize_any(self)?;
        Ok(if matches!(self.keep, Keep::Time) { time(kept) } else { kept })
    }
}

fn time(given: Value) -> Value {
    match &given {
        Value::Null => given,
        Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => given,
        _ => Value::from(LATEST_TIME),
    }
}

/// Reads a part of a value. A value of another type than it should have is passed on as far as it
/// can be without reading all of it, so that the types say what is wrong.
#[derive(Clone, Copy)]
struct Part {
    keep: Keep,
    /// How many values are around it.
    level: u8,
}

impl Part {
    fn inside(self, keep: Keep) -> Self {
        Self { keep, level: self.level + 1 }
    }
}

impl<'de> Visitor<'de> for Part {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(name) = map.next_key_seed(Name(PhantomData))? {
            match self.keep.field(&name) {
                Some(keep) => {
                    let value = map.next_value_seed(self.inside(keep))?;
                    kept.insert(name.into_owned(), value);
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(kept))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let Some(keep) = self.keep.element() else {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Value::Array(Vec::new()));
        };
        let mut kept = Vec::new();
        while let Some(element) = list.next_element_seed(self.inside(keep))? {
            kept.push(element);
        }
        Ok(Value::Array(kept))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
}

/// The name of a field, borrowed where it can be: most are skipped.
struct Name<'a>(PhantomData<&'a ()>);

impl<'de> DeserializeSeed<'de> for Name<'de> {
    type Value = std::borrow::Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name<'de> {
    type Value = std::borrow::Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(name.into())
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(name.to_owned().into())
    }
}
