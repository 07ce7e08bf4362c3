-- The raw results: a CSV file NAME.csv of any part is added to the table NAME. Times are seconds. All tables that begin
-- with `system` have the same first columns: what identifies the run of a line.
--   system     beatkeeper, gateway (beatkeeper with beats through one), etcd, redis or zookeeper
--   variant    what differs from the usual setup; empty for the usual setup, also where the file has nothing
--   instances  how many instances beat
--   beats      how many renewals are due per second
--   run        the number of the run, from 1

-- A fact about the machine or the build, with the part that recorded it.
CREATE TABLE context(part TEXT, what TEXT, value TEXT);

-- A measured system.
CREATE TABLE systems(system TEXT, variant TEXT NOT NULL ON CONFLICT REPLACE DEFAULT '', instances INTEGER, beats REAL, run INTEGER, version TEXT);

-- An instance died, deregistered or came back, and the watcher saw it. Times count from the beginning of the run.
--   scenario      first, single, leave, mass, churn or takeover
--   act           death, leave or return
--   last_renewal  when the last renewal, or the request of another act, was sent
--   answer        from then to the answer of the last renewal; 0 for other acts
--   deadline      the moment after which the act counts as late
--   seen, lag     when the watcher saw the effect, and how long after the deadline
CREATE TABLE lag(system TEXT, variant TEXT NOT NULL ON CONFLICT REPLACE DEFAULT '', instances INTEGER, beats REAL, run INTEGER,
  scenario TEXT, act TEXT, instance INTEGER, last_renewal REAL, answer REAL, deadline REAL, seen REAL, lag REAL);

-- An instance did something, and the watcher did not see it. The scenario `stray`: it was removed although it beat.
CREATE TABLE missed(system TEXT, variant TEXT NOT NULL ON CONFLICT REPLACE DEFAULT '', instances INTEGER, beats REAL, run INTEGER,
  scenario TEXT, act TEXT, instance INTEGER);

-- A part was suspended while all instances were alive: how many were published before, and removed.
CREATE TABLE freeze(system TEXT, variant TEXT NOT NULL ON CONFLICT REPLACE DEFAULT '', instances INTEGER, beats REAL, run INTEGER,
  part TEXT, seconds REAL, alive INTEGER, removed INTEGER);

-- What a process has used since its start, at the beginning and at the end of a span.
--   part       operator, client, or a part of a measured system
--   scenario   the span: peers is the steady state of all systems, steady and churn are of the operator alone, nobody,
--              agent and sdk are of clients
--   phase      began or ended
--   at         the moment
--   cpu        seconds on all cores
--   rss, peak  memory in MiB
--   renewals   how many renewals were answered
--   received   bytes from the API server, with encryption
CREATE TABLE meters(system TEXT, variant TEXT NOT NULL ON CONFLICT REPLACE DEFAULT '', instances INTEGER, beats REAL, run INTEGER,
  part TEXT, scenario TEXT, phase TEXT, at REAL, cpu REAL, rss REAL, peak REAL, renewals INTEGER, received INTEGER);

-- A metric of a process, with those of its labels that the report uses. Besides the spans above: single, in which
-- single instances die, and whole, which is a run without the freezes and begins with the process.
CREATE TABLE metrics(system TEXT, variant TEXT NOT NULL ON CONFLICT REPLACE DEFAULT '', instances INTEGER, beats REAL, run INTEGER,
  part TEXT, scenario TEXT, phase TEXT, name TEXT, kind TEXT, verb TEXT, step TEXT, resource TEXT, le REAL, value REAL);

-- Renewals that are sent as soon as the previous one is answered, by a number of clients at a time.
CREATE TABLE capacity(system TEXT, variant TEXT NOT NULL ON CONFLICT REPLACE DEFAULT '', instances INTEGER, beats REAL, run INTEGER,
  clients INTEGER, seconds REAL, renewals REAL, failures INTEGER);

-- An operator began to publish: after its start, or after the leader was asked to end (term) or killed (kill).
--   leads, published, newcomer   seconds until it reports that it leads, until the watcher saw a change that only it
--                                can have published, and until an instance was seen that had registered before
--   lost                         how many living instances were missing
CREATE TABLE takeovers(system TEXT, variant TEXT NOT NULL ON CONFLICT REPLACE DEFAULT '', instances INTEGER, beats REAL, run INTEGER,
  how TEXT, round INTEGER, leads REAL, published REAL, newcomer REAL, lost INTEGER);

-- An endpoint of a Pod that died, without Beatkeeper: how (hang, node), and when the watcher saw that it is not ready.
-- All endpoints of one dead node have the same number.
CREATE TABLE plain(death INTEGER, how TEXT, pod TEXT, seconds REAL);

-- Criterion's samples, and what core-memory and core-hour print.
CREATE TABLE core("group" TEXT, function TEXT, value REAL, throughput_num REAL, throughput_type TEXT,
  sample_measured_value REAL, unit TEXT, iteration_count REAL);
CREATE TABLE memory(instances INTEGER, services INTEGER, bytes INTEGER, bytes_per_instance REAL);
CREATE TABLE hour(instances INTEGER, services INTEGER, ttl INTEGER, interval INTEGER, seconds INTEGER, beats INTEGER,
  deaths INTEGER, prunes INTEGER, false_prunes INTEGER, late_prunes INTEGER, share_of_core REAL);

-- What the tables call the act of a scenario. Other acts are in no table.
CREATE VIEW names(scenario, act, name) AS VALUES
  ('single', 'death', 'single'), ('mass', 'death', 'mass'), ('leave', 'leave', 'leave'),
  ('single', 'return', 'return'), ('mass', 'return', 'return'), ('leave', 'return', 'return'),
  ('churn', 'death', 'churn, silent'), ('churn', 'leave', 'churn, leaving'), ('churn', 'return', 'churn, new'),
  ('takeover', 'death', 'takeover, silent');

CREATE VIEW lags AS SELECT trim(system || ' ' || variant) AS who, * FROM lag JOIN names USING (scenario, act);

-- The figures of each run.
CREATE VIEW lag_runs AS
SELECT who, name, system, variant, instances, beats, run, count(*) AS seen,
  quantile(lag, 0.5) AS p50, quantile(lag, 0.99) AS p99, max(lag) AS last, sum(lag < 0) AS early,
  quantile(lag - answer, 0.5) AS answered_p50, quantile(lag - answer, 0.99) AS answered_p99,
  max(seen) - max(deadline) AS last_past_last_deadline
FROM lags GROUP BY name, system, variant, instances, beats, run;

-- The tables of the scenarios.
CREATE VIEW lag_table AS
SELECT name, row_number() OVER (ORDER BY instances, system, variant, beats) AS place,
  who AS "System", instances AS "Instances",
  told(beats, '') AS "Beats/s", sum(seen) AS "Seen",
  spread(p50, 's') AS p50, spread(p99, 's') AS p99, spread(last, 's') AS "Last",
  iif(name IN ('single', 'mass'),
    told(median(answered_p50), 's') || ', ' || told(median(answered_p99), 's'), '') AS "p50, p99 from answered",
  sum(early) AS "Early",
  (SELECT count(*) FROM missed JOIN names USING (scenario, act)
    WHERE (names.name, missed.system, missed.variant, missed.instances, missed.beats)
      = (lag_runs.name, lag_runs.system, lag_runs.variant, lag_runs.instances, lag_runs.beats)) AS "Never seen"
FROM lag_runs GROUP BY name, instances, system, variant, beats;

-- The plots of the scenarios. The rate of beats is named if there are several.
CREATE VIEW lag_plots AS
SELECT name, instances, 'lag-' || name || '-' || instances AS file,
  who || iif((SELECT count(DISTINCT beats) FROM lags AS other
      WHERE (other.name, other.instances) = (lags.name, lags.instances)) = 1,
    '', ', ' || told(beats, '') || ' beats/s') AS line,
  lag AS value
FROM lags ORDER BY instances, line, value;

CREATE VIEW churn_lags AS
SELECT name AS "Who", instances AS "Instances", sum(seen) AS "Seen",
  spread(p50, 's') AS p50, spread(p99, 's') AS p99, spread(last, 's') AS "Last",
  (SELECT count(*) FROM missed JOIN names USING (scenario, act)
    WHERE (names.name, missed.instances) = (lag_runs.name, lag_runs.instances)) AS "Never seen"
FROM lag_runs GROUP BY instances, name;

-- What a process used over a span. `cpu` is a share of one core, `renewals` are those of a second.
CREATE VIEW usage AS
SELECT system, variant, instances, beats, run, part, scenario, ended.at - began.at AS seconds,
  (ended.cpu - began.cpu) / (ended.at - began.at) AS cpu, ended.rss, ended.peak,
  (ended.renewals - began.renewals) / (ended.at - began.at) AS renewals, ended.received - began.received AS received
FROM meters AS began JOIN meters AS ended USING (system, variant, instances, beats, run, part, scenario)
WHERE began.phase = 'began' AND ended.phase = 'ended';

-- By how much metrics have grown over a span.
CREATE VIEW grown AS
SELECT system, variant, instances, beats, run, part, scenario, name, kind, verb, step, resource, le,
  sum(iif(phase = 'ended', value, -value)) AS value
FROM metrics GROUP BY system, variant, instances, beats, run, part, scenario, name, kind, verb, step, resource, le;

-- The buckets of the histograms among them, with the number of all observations.
CREATE VIEW buckets AS
SELECT *, max(value) OVER (PARTITION BY system, variant, instances, beats, run, part, scenario, name, kind, verb, step)
  AS total
FROM grown WHERE le IS NOT NULL;

-- The operator's requests. It never writes Leases of instances, it only deletes them: any other write of a Lease
-- renews its own, which proves that beats can arrive.
CREATE VIEW requests AS
SELECT *, verb NOT IN ('get', 'list', 'watch') AS writes,
  verb NOT IN ('get', 'list', 'watch', 'delete') AND kind IS 'Lease' AS probes
FROM (SELECT scenario, instances, beats, run, iif(name = 'beatkeeper_watch_restarts_total', 'watch', verb) AS verb, kind,
    value AS count
  FROM grown WHERE part = 'operator' AND value > 0 AND scenario IN ('steady', 'churn')
    AND name IN ('beatkeeper_api_call_duration_seconds_count', 'beatkeeper_watch_restarts_total'));

-- The number of the operator's writes in the steady state of each run of `peers` and `plane`.
CREATE VIEW steady_writes AS
SELECT instances, beats, variant, run,
  total(iif(kind IS NOT 'Lease', value, 0)) AS others, total(iif(kind IS 'Lease', value, 0)) AS leases
FROM grown WHERE part = 'operator' AND scenario = 'peers' AND name = 'beatkeeper_api_writes_total'
GROUP BY instances, beats, variant, run;

CREATE VIEW samples AS
SELECT "group", function, ifnull(value, 0) AS size,
  sample_measured_value / iteration_count / 1e9 AS seconds,
  sample_measured_value / iteration_count / 1e9 / ifnull(throughput_num, 1) AS each
FROM core;
