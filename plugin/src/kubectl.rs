//! kubectl, which has started the plugin: it can do in a Pod what clusters offer in several ways.

use crate::flags::ConnectionFlags;

/// The words behind `kubectl` that choose the same cluster, the same user and a namespace.
pub fn words(connection: &ConnectionFlags, namespace: &str) -> Vec<String> {
    let ConnectionFlags { namespace: _, context, kubeconfig, act_as, act_as_groups } = connection;
    let mut words = vec!["--namespace".to_owned(), namespace.to_owned()];
    let mut flag = |name: &str, value: String| words.extend([name.to_owned(), value]);
    context.iter().for_each(|it| flag("--context", it.clone()));
    kubeconfig.iter().for_each(|it| flag("--kubeconfig", it.display().to_string()));
    act_as.iter().for_each(|it| flag("--as", it.clone()));
    act_as_groups.iter().for_each(|it| flag("--as-group", it.clone()));
    words
}
