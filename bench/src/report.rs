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

    /// Writes raw results of a part, and returns the report.
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

    #[test]
    fn a_report_has_tables_with_medians_and_shows_the_plots_that_it_draws() {
        let mut lags = format!("{RUN},scenario,instance,last_renewal,answer,deadline,seen,lag\n");
        for (system, lag) in [("beatkeeper", 0.01), ("etcd", 0.25)] {
            for (run, n) in (1..=2).flat_map(|run| (1..=10).map(move |n| (run, n))) {
                let lag = lag * f64::from(n);
                lags +=
                    &format!("{system},,100,33.3,{run},single,{n},0,0,10,{},{lag}\n", 10.0 + lag);
            }
        }
        let systems = "system,version,absent\nredis,,redis-server is not installed\n";
        let (folder, text) = report(&[("lag", &lags), ("systems", systems)]);
        let row =
            "| beatkeeper | 100 | 33.3 | 20 | 50 ms | 100 ms | 100 ms | 50 ms, 100 ms | 0 | 0 |";
        assert!(text.contains(row), "{text}");
        assert!(
            text.contains("* mode: test\n* redis: not measured: redis-server is not installed\n"),
            "{text}"
        );
        assert_eq!(text.matches(".svg)").count(), 1, "{text}");
        let svg = fs::read_to_string(folder.path().join("benchmarks/lag-single-100.svg")).unwrap();
        assert!(svg.contains("beatkeeper") && svg.contains("etcd"), "{svg}");
    }

    #[test]
    fn without_results_all_targets_are_not_measured_and_there_are_no_tables() {
        let (_folder, text) = report(&[]);
        assert_eq!(text.matches("|  | not measured |").count(), 26, "{text}");
        assert_eq!(text.matches("\n## ").count(), 1, "{text}");
    }

    #[test]
    fn a_lag_is_the_median_of_the_runs_and_one_early_death_is_one_too_many() {
        let heading = format!("{RUN},scenario,instance,last_renewal,answer,deadline,seen,lag\n");
        let line = |n: u32, lag: f64| {
            format!("beatkeeper,,100,10,{n},single,1,0,0.002,10,{},{lag}\n", 10.0 + lag)
        };
        let lags = heading + &line(1, 0.005) + &line(2, 0.015) + &line(3, 0.030);
        let (_folder, text) = report(&[("lag", &lags)]);
        for row in [
            "| 100 instances, single deaths | p50, from sent | ≤ 10 ms | 15 ms | not reached |",
            "| 100 instances, single deaths | p99, from answered | ≤ 20 ms | 13 ms | reached |",
            "| All deaths | least lag, from sent | ≥ 0 s | 5 ms | reached |",
            "| All scenarios but the freezes | living instances removed | ≤ 0 | 0 | reached |",
        ] {
            assert!(text.contains(row), "{text}");
        }
        let (_folder, text) = report(&[("lag", &(lags + &line(4, -0.001)))]);
        assert!(text.contains("| ≥ 0 s | -1 ms | not reached |"), "{text}");
    }

    #[test]
    fn a_write_in_steady_state_is_one_too_many_unless_it_is_a_probe() {
        let usage = format!(
            "{RUN},part,scenario,seconds,renewals,cpu,rss,peak,received\n\
             beatkeeper,,10000,1000,1,operator,steady,10,1000,0.2,40,50,80000\n"
        );
        let probes = format!(
            "{RUN},part,scenario,verb,kind,seconds,count\n\
             beatkeeper,,10000,1000,1,operator,steady,patch,Lease,10,20\n\
             beatkeeper,,10000,1000,1,operator,steady,get,,10,50\n"
        );
        let (_folder, text) = report(&[("usage", &usage), ("calls", &probes)]);
        assert!(text.contains("| writes, but for probes | ≤ 0 | 0 | reached |"), "{text}");
        let row = "| steady | 10000 | 1000 | 20 % | 40 MiB | 50 MiB | 8 kB | 8 | 5 | 0 | 2 |";
        assert!(text.contains(row), "{text}");
        assert!(
            text.contains("| memory, the peak until then | ≤ 60 MB | 52.4 MB | reached |"),
            "{text}"
        );
        let writes =
            probes + "beatkeeper,,10000,1000,1,operator,steady,update,EndpointSlice,10,7\n";
        let (_folder, text) = report(&[("usage", &usage), ("calls", &writes)]);
        assert!(text.contains("| writes, but for probes | ≤ 0 | 7 | not reached |"), "{text}");
    }
}
