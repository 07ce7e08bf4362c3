//! The report: tables and plots of the raw results, as Markdown with SVG files. The template report/report.md has the
//! text and the query of each table.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

mod database;
mod numbers;
mod plot;
mod template;

const TEMPLATE: &str = include_str!("../report/report.md");

/// What to make of which results.
#[derive(Debug, Args)]
pub struct Plan {
    /// The folder with a folder of raw results for each part.
    #[arg(long, value_name = "DIR")]
    results: PathBuf,
    /// The Markdown file; the plots go into the folder of its name beside it.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Writes the report.
///
/// # Errors
/// If there are no results, or the files cannot be written.
pub fn write(plan: &Plan) -> Result<()> {
    let database = database::open(&plan.results)?;
    let parts: u32 = database.query_row("SELECT count(*) FROM context", [], |row| row.get(0))?;
    ensure!(parts > 0, "there are no results in {}; make bench makes some", plan.results.display());
    let plots = plan.out.with_extension("");
    fs::create_dir_all(&plots)?;
    let text = template::fill(TEMPLATE, &database, &plots)?;
    fs::write(&plan.out, text).with_context(|| format!("cannot write {}", plan.out.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes raw results of a part, and returns the report. The folder has its plots.
    fn report(files: &[(&str, &str)]) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("peers");
        fs::create_dir_all(&part).unwrap();
        fs::write(part.join("context.csv"), "part,what,value\npeers,mode,test\n").unwrap();
        for (name, text) in files {
            fs::write(part.join(format!("{name}.csv")), text).unwrap();
        }
        let out = folder.path().join("benchmarks.md");
        write(&Plan { results: folder.path().to_owned(), out: out.clone() }).unwrap();
        let text = fs::read_to_string(out).unwrap();
        (folder, text)
    }

    /// The first columns of a line about Beatkeeper, and their headings.
    const RUN: &str = "system,variant,instances,beats,run";

    /// Returns raw results of single deaths: system, run, number of the instance, and lag.
    fn single_deaths(deaths: impl IntoIterator<Item = (&'static str, u32, u32, f64)>) -> String {
        let columns = "scenario,act,instance,last_renewal,answer,deadline,seen,lag";
        let lines = deaths.into_iter().map(|(system, run, instance, lag)| {
            let seen = 10.0 + lag;
            format!("{system},,100,33.3,{run},single,death,{instance},0,0.002,10,{seen},{lag}\n")
        });
        format!("{RUN},{columns}\n") + &lines.collect::<String>()
    }

    #[test]
    fn a_report_has_tables_with_medians_and_shows_the_plots_that_it_draws() {
        let deaths = |system: &'static str, lag: f64, run: u32| {
            (1..=10_u32).map(move |n| (system, run, n, lag * f64::from(n)))
        };
        let ours = deaths("beatkeeper", 0.01, 1).chain(deaths("beatkeeper", 0.01, 2));
        let lags = single_deaths(ours.chain(deaths("etcd", 0.25, 1)));
        let systems = "system,version\nredis,Redis 7\n";
        let (folder, text) = report(&[("lag", &lags), ("systems", systems)]);
        let row =
            "| beatkeeper | 100 | 33.3 | 20 | 50 ms | 100 ms | 100 ms | 48 ms, 98 ms | 0 | 0 |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("* mode: test\n* redis: Redis 7\n"), "{text}");
        assert_eq!(text.matches(".svg)").count(), 1, "{text}");
        let svg = fs::read_to_string(folder.path().join("benchmarks/lag-single-100.svg")).unwrap();
        assert!(svg.contains("beatkeeper") && svg.contains("etcd"), "{svg}");
    }

    #[test]
    fn without_results_all_targets_are_not_measured_and_there_are_no_tables() {
        let (_folder, text) = report(&[]);
        assert_eq!(text.matches("|  | not measured |").count(), 29, "{text}");
        assert_eq!(text.matches("\n## ").count(), 1, "{text}");
    }

    #[test]
    fn a_lag_is_the_median_of_the_runs_and_one_early_death_is_one_too_many() {
        let death = |run: u32, lag: f64| ("beatkeeper", run, 1_u32, lag);
        let lags = [death(1, 0.005), death(2, 0.015), death(3, 0.030)];
        let (_folder, text) = report(&[("lag", &single_deaths(lags))]);
        for row in [
            "| 100 instances, single deaths | p50, from sent | ≤ 10 ms | 15 ms | not reached |",
            "| 100 instances, single deaths | p99, from answered | ≤ 20 ms | 13 ms | reached |",
            "| All deaths | least lag, from sent | ≥ 0 s | 5 ms | reached |",
            "| All scenarios but the freezes | living instances removed | ≤ 0 | 0 | reached |",
        ] {
            assert!(text.contains(row), "{text}");
        }
        let lags = single_deaths(lags.into_iter().chain([death(4, -0.001)]));
        let (_folder, text) = report(&[("lag", &lags)]);
        assert!(text.contains("| ≥ 0 s | -1 ms | not reached |"), "{text}");
    }

    #[test]
    fn a_write_in_steady_state_is_one_too_many_unless_it_is_a_probe() {
        let run = "beatkeeper,,10000,1000,1,operator,steady";
        let meters = format!(
            "{RUN},part,scenario,phase,at,cpu,rss,peak,renewals,received\n\
             {run},began,5,1,10,20,0,1000\n{run},ended,15,3,40,50,10000,81000\n"
        );
        let name = "beatkeeper_api_call_duration_seconds_count";
        let probes = format!(
            "{RUN},part,scenario,phase,name,kind,verb,value\n\
             {run},began,{name},Lease,patch,4\n{run},ended,{name},Lease,patch,24\n\
             {run},ended,{name},,get,50\n"
        );
        let (_folder, text) = report(&[("meters", &meters), ("metrics", &probes)]);
        assert!(text.contains("| writes, but for probes | ≤ 0 | 0 | reached |"), "{text}");
        let row = "| steady | 10000 | 1000 | 20 % | 40 MiB | 50 MiB | 8 kB | 8 | 5 | 0 | 2 |";
        assert!(text.contains(row), "{text}");
        assert!(
            text.contains("| memory, the peak until then | ≤ 60 MB | 52.4 MB | reached |"),
            "{text}"
        );
        let writes = probes + &format!("{run},ended,{name},EndpointSlice,update,7\n");
        let (_folder, text) = report(&[("meters", &meters), ("metrics", &writes)]);
        assert!(text.contains("| writes, but for probes | ≤ 0 | 7 | not reached |"), "{text}");
    }

    #[test]
    fn the_requests_that_there_are_without_a_client_are_none_of_the_client() {
        let meter = |instances, part, client, phase, at| {
            format!("beatkeeper,,{instances},0.1,1,{part},{client},{phase},{at},0,1,1\n")
        };
        let metric = |instances, client, code, value| {
            let name = "apiserver_request_total";
            format!(
                "beatkeeper,,{instances},0.1,1,kube-apiserver,{client},ended,{name},{code},{value}\n"
            )
        };
        let mut meters = format!("{RUN},part,scenario,phase,at,cpu,rss,peak\n");
        for (instances, client) in [(0, "nobody"), (1, "agent")] {
            for (phase, at) in [("began", 0), ("ended", 10)] {
                meters += &meter(instances, "kube-apiserver", client, phase, at);
                meters += &meter(instances, "client", client, phase, at);
            }
        }
        let metrics = format!("{RUN},part,scenario,phase,name,resource,verb,value\n")
            + &metric(0, "nobody", "leases,PATCH", 20)
            + &metric(1, "agent", "leases,PATCH", 70)
            + &metric(1, "agent", "leases,PATCH", 10)
            + &metric(1, "agent", ",GET", 9);
        let (_folder, text) = report(&[("meters", &meters), ("metrics", &metrics)]);
        assert!(
            text.contains("| agent | 1 | 0.10 | 0 % | 1 MiB | 1 MiB | patch leases 6 |"),
            "{text}"
        );
    }
}
