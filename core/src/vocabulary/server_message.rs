//! Messages of the API server and of admission plugins, prepared for reports.

/// The largest number of characters of a message that is reported.
const TOLD_MAX: usize = 400;
/// How many characters the API server adds to a prefix to generate a name.
const GENERATED: usize = 5;

/// The message on one line and of limited length. If it contains a name that the API server generated from this
/// prefix, the generated part is replaced, because it differs with each retry. So the report stays the same as long as
/// the message does.
pub fn printable(answer: &str, prefix: Option<&str>) -> String {
    let line: String = answer.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    let line = match prefix.filter(|prefix| !prefix.is_empty()) {
        Some(prefix) => without_generated(&line, prefix),
        None => line,
    };
    if line.chars().count() <= TOLD_MAX {
        return line;
    }
    line.chars().take(TOLD_MAX).chain("…".chars()).collect()
}

fn without_generated(line: &str, prefix: &str) -> String {
    let mut rest = line;
    let mut text = String::with_capacity(line.len());
    while let Some(at) = rest.find(prefix) {
        let (before, found) = rest.split_at(at + prefix.len());
        text.push_str(before);
        let made_up = found.bytes().take_while(|it| it.is_ascii_lowercase() || it.is_ascii_digit());
        rest = match made_up.count() {
            GENERATED => {
                text.push('*');
                &found[GENERATED..]
            }
            _ => found,
        };
    }
    text + rest
}

/// Whether two messages agree, apart from parts that may differ with each retry: times, ids and counts.
pub fn agree(one: &str, other: &str) -> bool {
    fn lasting(text: &str) -> impl Iterator<Item = &str> {
        let words = text.split(|it: char| !it.is_alphanumeric());
        words.filter(|word| !word.is_empty() && !word.contains(|it: char| it.is_ascii_digit()))
    }
    lasting(one).eq(lasting(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        assert_eq!(printable("denied:\nlevel=error\r\x1b[31m", None), "denied: level=error  [31m");
        let long = printable(&"x".repeat(10_000), None);
        assert_eq!(long.chars().count(), TOLD_MAX + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn a_name_that_the_api_server_made_up_is_left_out() {
        let answer = |name: &str| {
            format!("endpointslices \"{name}\" is forbidden: policy greeter-owner denied")
        };
        let told = |name| printable(&answer(name), Some("greeter-"));
        assert_eq!(told("greeter-x7k2p"), answer("greeter-*").replace("-owner", "-*"));
        assert_eq!(told("greeter-x7k2p"), told("greeter-b9qzz"));
        assert_eq!(super::printable("greeter-longer", Some("greeter-")), "greeter-longer");
        assert_eq!(super::printable("greeter-x7k2p", Some("")), "greeter-x7k2p");
    }

    #[test]
    fn answers_that_differ_in_ids_and_times_only_agree() {
        assert!(agree("request 7f3a9 at 10:01 denied", "request 1c2 at 10:02 denied"));
        assert!(!agree("denied by policy a", "denied by policy b"));
    }
}
