//! The functions of the app that are called at the start, at the stop, and to check its health.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::error::{BoxError, Error, StopError};

/// A function to call at the start or at the stop.
pub(crate) type Hook = Box<dyn FnOnce() -> BoxFuture<'static, Result<(), BoxError>> + Send>;
/// Checks the health of the service.
pub(crate) type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

/// The hooks, each in the order in which they were given.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) before_start: Vec<Hook>,
    pub(crate) after_start: Vec<Hook>,
    pub(crate) before_stop: Vec<Hook>,
    pub(crate) after_stop: Vec<Hook>,
}

/// Makes a hook of a function of the app.
pub(crate) fn boxed<F, E>(hook: impl FnOnce() -> F + Send + 'static) -> Hook
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<BoxError>,
{
    Box::new(move || Box::pin(async move { hook().await.map_err(Into::into) }))
}

/// Runs the hooks until one fails.
pub(crate) async fn run_hooks(name: &'static str, hooks: Vec<Hook>) -> Result<(), Error> {
    for hook in hooks {
        hook().await.map_err(|source| Error::Hook { hook: name, source })?;
    }
    Ok(())
}

/// Runs all hooks, and collects their errors.
pub(crate) async fn run_all(error: &mut StopError, name: &'static str, hooks: Vec<Hook>) {
    for hook in hooks {
        if let Err(why) = hook().await {
            error.hooks.push((name, why));
        }
    }
}
