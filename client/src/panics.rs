//! A panic is the failure of one try, and no reason to stop beating for good.

use std::{any::Any, fmt, panic::AssertUnwindSafe};

use futures::FutureExt;

/// The message of a panic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panic(String);

impl Panic {
    /// Takes the message from the payload of `catch_unwind` or of a task that has ended.
    pub fn of(payload: &(dyn Any + Send)) -> Self {
        let literal = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = literal.or_else(|| payload.downcast_ref::<String>().cloned());
        Self(text.unwrap_or_else(|| "without a word".to_owned()))
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the program panicked: {}", self.0)
    }
}

impl std::error::Error for Panic {}

/// Returns the outcome of a future, or an error if it panics. The data that it works on may be half changed,
/// so the caller has to read its state anew.
///
/// # Errors
/// The future panicked.
pub async fn catch_panic<T>(doing: impl Future<Output = T>) -> Result<T, Panic> {
    AssertUnwindSafe(doing).catch_unwind().await.map_err(|payload| Panic::of(&*payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_error_with_its_words() {
        assert_eq!(catch_panic(async { 7 }).await, Ok(7));
        let reported = |payload: Box<dyn Any + Send>| Panic::of(&*payload).to_string();
        assert_eq!(reported(Box::new("a")), "the program panicked: a");
        assert_eq!(reported(Box::new("b".to_owned())), "the program panicked: b");
        assert_eq!(reported(Box::new(7)), "the program panicked: without a word");
        let catch_panic =
            catch_panic(async { panic!("number {}", 7) }).await.map_err(|it| it.to_string());
        assert_eq!(catch_panic, Err::<(), _>("the program panicked: number 7".to_owned()));
    }
}
