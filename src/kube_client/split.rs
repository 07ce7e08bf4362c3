//! Splits a list into its items while it arrives. At most one item is held at a time.

/// How many bytes of a buffer's capacity are kept from one item to the next.
const ROOM: usize = 64 * 1024;

/// Finds the items in the text of a list: the elements of `items` in the outermost object.
///
/// The splitter recognizes strings, brackets and commas, but no other part of JSON. The code that decodes an item
/// reports what is wrong with it.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// The list without its items.
    envelope: Vec<u8>,
    item: Vec<u8>,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The last field name in the outermost object, and whether its value has begun.
    field: Vec<u8>,
    in_value: bool,
    in_items: bool,
}

impl Splitter {
    /// Takes in bytes that have arrived, and passes on each item that is complete.
    pub(super) fn feed(&mut self, bytes: &[u8], mut complete: impl FnMut(&[u8])) {
        for byte in bytes {
            if self.step(*byte) {
                complete(&self.item);
                self.item.clear();
                self.item.shrink_to(ROOM);
            }
        }
    }

    /// The list without its items, after all of it has arrived. None if it ended too early.
    pub(super) fn finish(self) -> Option<Vec<u8>> {
        (self.depth == 0 && !self.in_string && !self.envelope.is_empty()).then_some(self.envelope)
    }

    /// Takes in a byte. Returns whether an item ends with this byte or before it.
    fn step(&mut self, byte: u8) -> bool {
        let outside_items = !self.in_items;
        if self.in_string {
            self.keep(byte, outside_items);
            self.in_string(byte);
            return false;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                if outside_items && self.depth == 1 && !self.in_value {
                    self.field.clear();
                }
            }
            b'{' | b'[' => {
                let items = outside_items && self.depth == 1 && self.in_value;
                self.depth += 1;
                if items && byte == b'[' && self.field == b"items" {
                    self.in_items = true;
                    self.envelope.push(byte);
                    return false;
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.in_items && self.depth == 1 {
                    self.in_items = false;
                    self.envelope.push(byte);
                    return !self.item.is_empty();
                }
            }
            b':' if self.depth == 1 => self.in_value = true,
            b',' if self.in_items && self.depth == 2 => return !self.item.is_empty(),
            b',' if self.depth == 1 => self.in_value = false,
            b' ' | b'\t' | b'\r' | b'\n' => return false,
            _ => {}
        }
        self.keep(byte, outside_items);
        false
    }

    fn keep(&mut self, byte: u8, outside_items: bool) {
        if outside_items {
            self.envelope.push(byte);
        } else {
            self.item.push(byte);
        }
    }

    fn in_string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                self.in_string = false;
                return;
            }
            _ => {}
        }
        // No field name that is searched for is longer than this.
        if !self.in_items && self.depth == 1 && !self.in_value && self.field.len() < 8 {
            self.field.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use serde_json::{Value, json};

    fn split(text: &[u8], pieces: usize) -> (Vec<Value>, Option<Value>) {
        let mut items = Vec::new();
        let mut splitter = Splitter::default();
        for piece in text.chunks(pieces.max(1)) {
            splitter.feed(piece, |item| items.push(serde_json::from_slice(item).expect("JSON")));
        }
        let envelope = splitter.finish();
        (items, envelope.map(|envelope| serde_json::from_slice(&envelope).expect("JSON")))
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            any::<String>(),
            Just("items".to_owned()),
            Just("}],\\\"".to_owned()),
            Just("\\".to_owned()),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                vec((text.clone(), inner), 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_list_in_any_pieces_comes_apart_into_its_items_and_the_rest(
            items in vec(any_value(), 0..5),
            metadata in any_value(),
            pretty in any::<bool>(),
            pieces in 1..50_usize,
        ) {
            let list = json!({ "kind": "List", "metadata": metadata, "items": items, "z": [metadata] });
            let text = if pretty { serde_json::to_vec_pretty(&list) } else { serde_json::to_vec(&list) };
            let (found, envelope) = split(&text.expect("text"), pieces);
            prop_assert_eq!(found, items);
            let rest = json!({ "kind": "List", "metadata": metadata, "items": [], "z": [metadata] });
            prop_assert_eq!(envelope, Some(rest));
        }
    }

    #[test]
    fn a_list_that_was_cut_off_is_none() {
        let text = br#"{"metadata":{},"items":[{"a":1},{"b":2}]}"#;
        for length in 1..text.len() {
            assert_eq!(split(&text[..length], 7).1, None, "{length}");
        }
        assert_eq!(split(text, 7).0.len(), 2);
        assert_eq!(split(b"", 1).1, None);
        assert_eq!(split(br#"{"items":null}"#, 3), (vec![], Some(json!({ "items": null }))));
    }
}
