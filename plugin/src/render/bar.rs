//! The time since the last beat, as a bar whose length is the ttl.

use std::time::Duration;

/// How many cells a bar has between its ends.
pub const CELLS: usize = 10;

/// The bar. It is full when the ttl has passed; a bar of an instance that has never beaten is empty and open.
pub fn bar(silent: Option<Duration>, ttl: Duration) -> String {
    let Some(silent) = silent else { return format!("[{}]", "·".repeat(CELLS)) };
    let filled = filled(silent, ttl);
    format!("[{}{}]", "█".repeat(filled), "░".repeat(CELLS - filled))
}

/// How many cells are filled. All of them only when the whole ttl has passed.
fn filled(silent: Duration, ttl: Duration) -> usize {
    if silent >= ttl {
        return CELLS;
    }
    let part = silent.as_secs_f64() / ttl.as_secs_f64() * CELLS as f64;
    (part.ceil() as usize).min(CELLS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_only_when_the_whole_ttl_has_passed() {
        let at = |millis| bar(Some(Duration::from_millis(millis)), Duration::from_secs(30));
        assert_eq!(at(0), "[░░░░░░░░░░]");
        assert_eq!(at(1), "[█░░░░░░░░░]");
        assert_eq!(at(15_000), "[█████░░░░░]");
        assert_eq!(at(29_999), "[█████████░]");
        assert_eq!(at(30_000), "[██████████]");
        assert_eq!(at(400_000), "[██████████]");
        assert_eq!(bar(None, Duration::from_secs(30)), "[··········]");
    }
}
