-- The raw results: a CSV file NAME.csv of any part is added to the table NAME. Times are seconds. All tables that begin
-- with `system` have the same first columns: what identifies the run of a line.
--   system     beatkeeper, etcd, redis or zookeeper
--   variant    what differs from the usual setup; NULL for the usual setup
--   instances  how many instances beat
--   beats      how many renewals are due per second
--   run        the number of the run, from 1

-- A fact about the machine or the build, with the part that recorded it.
CREATE TABLE context(part TEXT, what TEXT, value TEXT);

-- A measured system, or the reason why it was not measured.
CREATE TABLE systems(system TEXT, version TEXT, absent TEXT);

-- An instance died, deregistered or came back, and the watcher saw it. Times count from the beginning of the run.
--   scenario      single, mass, leave, return, first; churn and takeover with what the instance did
--   last_renewal  when the last renewal, or the request of another act, was sent
--   answer        from then to the answer of the last renewal; 0 for other acts
--   deadline      the moment after which the act counts as late
--   seen, lag     when the watcher saw the effect, and how long after the deadline
CREATE TABLE lag(system TEXT, variant TEXT, instances INTEGER, beats REAL, run INTEGER,
  scenario TEXT, instance INTEGER, last_renewal REAL, answer REAL, deadline REAL, seen REAL, lag REAL);

-- An instance did something, and the watcher did not see it. The scenario `stray`: it was removed although it beat.
CREATE TABLE missed(system TEXT, variant TEXT, instances INTEGER, beats REAL, run INTEGER,
  scenario TEXT, instance INTEGER);

-- A part was suspended while all instances were alive: how many were removed.
CREATE TABLE freeze(system TEXT, variant TEXT, instances INTEGER, beats REAL, run INTEGER,
  part TEXT, seconds REAL, removed INTEGER);

-- What a process used over a span: the operator, a client, or a part of a measured system. `cpu` is a share of one
-- core, memory is in MiB; `received` are bytes from the API server, with encryption, if they were counted.
--   scenario   peers for a part of a measured system in steady state; steady and churn for operator and clients
CREATE TABLE usage(system TEXT, variant TEXT, instances INTEGER, beats REAL, run INTEGER,
  part TEXT, scenario TEXT, seconds REAL, renewals REAL, cpu REAL, rss REAL, peak REAL, received INTEGER);

-- Renewals that are sent as soon as the previous one is answered, by a number of clients at a time.
CREATE TABLE capacity(system TEXT, variant TEXT, instances INTEGER, beats REAL, run INTEGER,
  clients INTEGER, seconds REAL, renewals REAL, failures INTEGER);

-- A metric of a process at one moment, with those of its labels that the report uses.
CREATE TABLE metrics(system TEXT, variant TEXT, instances INTEGER, beats REAL, run INTEGER,
  part TEXT, phase TEXT, name TEXT, kind TEXT, verb TEXT, step TEXT, le REAL, value REAL);

-- Requests to the API server over a span. The part `nobody`: requests that also occur without the measured client.
CREATE TABLE calls(system TEXT, variant TEXT, instances INTEGER, beats REAL, run INTEGER,
  part TEXT, scenario TEXT, verb TEXT, kind TEXT, seconds REAL, count REAL);

-- The events of all watches of the API server over a span, including those of its own controllers.
CREATE TABLE watched(system TEXT, variant TEXT, instances INTEGER, beats REAL, run INTEGER,
  scenario TEXT, resource TEXT, seconds REAL, events REAL, bytes REAL);

-- An operator began to publish: after its start, or after the leader was asked to end (term) or killed (kill).
--   leads, published, newcomer   seconds until it reports that it leads, until the watcher saw a change that only it
--                                can have published, and until an instance was seen that had registered before
--   lost                         how many living instances were missing
CREATE TABLE takeovers(system TEXT, variant TEXT, instances INTEGER, beats REAL, run INTEGER,
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

-- A system's name with its variant.
CREATE VIEW lags AS SELECT concat_ws(' ', system, variant) AS who, * FROM lag;

-- The figures of each run.
CREATE VIEW lag_runs AS
SELECT who, scenario, system, variant, instances, beats, run, count(*) AS seen,
  quantile(lag, 0.5) AS p50, quantile(lag, 0.99) AS p99, max(lag) AS last, sum(lag < 0) AS early,
  quantile(lag - answer, 0.5) AS answered_p50, quantile(lag - answer, 0.99) AS answered_p99,
  max(seen) - max(deadline) AS last_past_last_deadline
FROM lags GROUP BY scenario, system, variant, instances, beats, run;

-- The tables of the scenarios.
CREATE VIEW lag_table AS
SELECT scenario, row_number() OVER (ORDER BY instances, system, variant, beats) AS place,
  who AS "System", instances AS "Instances",
  told(beats, '') AS "Beats/s", sum(seen) AS "Seen",
  spread(p50, 's') AS p50, spread(p99, 's') AS p99, spread(last, 's') AS "Last",
  iif(scenario IN ('single', 'mass'),
    told(median(answered_p50), 's') || ', ' || told(median(answered_p99), 's'), '') AS "p50, p99 from answered",
  sum(early) AS "Early",
  (SELECT count(*) FROM missed WHERE (missed.scenario, missed.system, missed.instances, missed.beats)
      = (lag_runs.scenario, lag_runs.system, lag_runs.instances, lag_runs.beats)
    AND missed.variant IS lag_runs.variant) AS "Never seen"
FROM lag_runs GROUP BY scenario, instances, system, variant, beats;

-- The plots of the scenarios. The rate of beats is named if there are several.
CREATE VIEW lag_plots AS
SELECT scenario, instances, 'lag-' || scenario || '-' || instances AS file,
  who || iif((SELECT count(DISTINCT beats) FROM lag AS other
      WHERE (other.scenario, other.instances) = (lags.scenario, lags.instances)) = 1,
    '', ', ' || told(beats, '') || ' beats/s') AS name,
  lag AS value
FROM lags ORDER BY instances, name, value;

CREATE VIEW churn_lags AS
SELECT scenario AS "Who", instances AS "Instances", sum(seen) AS "Seen",
  spread(p50, 's') AS p50, spread(p99, 's') AS p99, spread(last, 's') AS "Last",
  (SELECT count(*) FROM missed
    WHERE (missed.scenario, missed.instances) = (lag_runs.scenario, lag_runs.instances)) AS "Never seen"
FROM lag_runs WHERE scenario GLOB 'churn*' OR scenario GLOB 'takeover, *'
GROUP BY instances, scenario;

-- The operator's requests. It never writes Leases of instances, it only deletes them: any other write of a Lease
-- renews its own, which proves that beats can arrive.
CREATE VIEW requests AS
SELECT *, verb NOT IN ('get', 'list', 'watch') AS writes,
  verb NOT IN ('get', 'list', 'watch', 'delete') AND kind IS 'Lease' AS probes
FROM calls WHERE part = 'operator';

-- The number of the operator's writes in the steady state of each run of `peers` and `plane`.
CREATE VIEW steady_writes AS
SELECT instances, beats, variant, run,
  total(iif(kind IS NOT 'Lease', grown, 0)) AS others, total(iif(kind IS 'Lease', grown, 0)) AS leases
FROM (SELECT *, CASE phase WHEN 'steady ended' THEN value WHEN 'steady began' THEN -value ELSE 0 END
    * (name = 'beatkeeper_api_writes_total') AS grown
  FROM metrics WHERE part = 'operator')
GROUP BY instances, beats, variant, run;

CREATE VIEW samples AS
SELECT "group", function, ifnull(value, 0) AS size,
  sample_measured_value / iteration_count / 1e9 AS seconds,
  sample_measured_value / iteration_count / 1e9 / ifnull(throughput_num, 1) AS each
FROM core;
