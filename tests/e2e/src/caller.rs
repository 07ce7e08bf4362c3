//! A client in a Pod that sends requests continuously, each over a connection of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::cluster::Cluster;

/// How long the client waits for an answer. After this time, the result of a request is known. It is long enough
/// for a small machine that starts twenty Pods meanwhile.
const TIMEOUT_MS: u64 = 2000;

/// One request, as the client prints it.
#[derive(Clone, Deserialize)]
pub(crate) struct Request {
    /// In milliseconds since 1970, by the client's clock.
    pub(crate) sent: u64,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    failed: Option<String>,
}

pub(crate) struct Caller<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> Caller<'a> {
    /// Starts sending, and returns after the first requests.
    pub(crate) async fn start(cluster: &'a Cluster, service: &str, rate: u32) -> Result<Self> {
        let name = format!("calls-{service}");
        let timeout = format!("{TIMEOUT_MS}ms");
        let url = format!("http://{service}");
        cluster
            .pod(&name, &["call", "-rate", &rate.to_string(), "-timeout", &timeout, &url])
            .await?;
        let caller = Self { cluster, name };
        let printed = async || Ok((!caller.printed().await?.is_empty()).then_some(()));
        cluster.until("the client has sent a request", printed).await?;
        Ok(caller)
    }

    async fn printed(&self) -> Result<Vec<Request>> {
        let log = self.cluster.in_namespace(&format!("logs {} --tail=-1", self.name)).await?;
        // The client may still be writing the last line.
        Ok(log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Returns all requests that were sent until now, once the result of each is known.
    pub(crate) async fn account(&self) -> Result<Account> {
        let last =
            |requests: &[Request]| requests.iter().map(|it| it.sent).max().unwrap_or_default();
        let now = last(&self.printed().await?);
        loop {
            let requests = self.printed().await?;
            if last(&requests) > now + TIMEOUT_MS + 1000 {
                return Ok(Account(requests.into_iter().filter(|it| it.sent <= now).collect()));
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Returns all requests, and ends the client.
    pub(crate) async fn stop(self) -> Result<Account> {
        let account = self.account().await?;
        self.cluster.in_namespace(&format!("delete pod {}", self.name)).await?;
        Ok(account)
    }
}

/// Requests and their results.
pub(crate) struct Account(Vec<Request>);

impl Account {
    pub(crate) fn since(&self, sent: u64) -> Self {
        Self(self.0.iter().filter(|it| it.sent >= sent).cloned().collect())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn last_sent(&self) -> u64 {
        self.0.iter().map(|it| it.sent).max().unwrap_or_default()
    }

    pub(crate) fn failed(&self) -> Vec<&Request> {
        self.0.iter().filter(|it| it.failed.is_some()).collect()
    }

    /// Returns the time from the first failed request to the last one.
    pub(crate) fn failed_for(&self) -> Duration {
        let sent = || self.failed().into_iter().map(|it| it.sent);
        Duration::from_millis(sent().max().unwrap_or_default() - sent().min().unwrap_or_default())
    }

    /// Returns how many requests each server answered.
    pub(crate) fn answers(&self) -> BTreeMap<&str, usize> {
        let mut answers = BTreeMap::new();
        for by in self.0.iter().filter_map(|it| it.by.as_deref()) {
            *answers.entry(by).or_default() += 1;
        }
        answers
    }

    fn causes(&self) -> BTreeMap<&str, usize> {
        let mut causes = BTreeMap::new();
        for cause in self.0.iter().filter_map(|it| it.failed.as_deref()) {
            *causes.entry(cause).or_default() += 1;
        }
        causes
    }

    pub(crate) fn must_be_without_failure(&self) -> Result<()> {
        let began = self.0.iter().map(|it| it.sent).min().unwrap_or_default();
        let when: Vec<_> = self.failed().iter().map(|it| (it.sent - began) / 100).collect();
        ensure!(
            self.failed().is_empty(),
            "{} of {} requests failed: {:?}, at these tenths of a second: {when:?}",
            self.failed().len(),
            self.count(),
            self.causes()
        );
        ensure!(self.count() > 0, "no request was sent");
        Ok(())
    }
}
