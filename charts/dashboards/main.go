// dashboards FOLDER: writes the Grafana dashboards of the chart into this folder, one file each.
//
// The queries use the metrics of docs/metrics.md. A test runs each of them against a real Prometheus.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// The series of one release, as the variables select it.
const selector = `namespace="$namespace",job="$job"`

// Grafana has 24 columns.
const (
	narrow = 6
	half   = 12
	height = 8
	low    = 4
)

func datasource() common.DataSourceRef {
	return common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("$datasource")}
}

// One query of a panel. In the expression, %s stands for the selector.
type query struct{ expression, legend string }

func (q query) target(ref int) *prometheus.DataqueryBuilder {
	return prometheus.NewDataqueryBuilder().
		RefId(string(rune('A' + ref))).
		Datasource(datasource()).
		Expr(fmt.Sprintf(q.expression, selector)).
		LegendFormat(q.legend)
}

// The quantiles of a histogram; `by` are labels, each followed by a comma, and `legend` shows them.
func quantiles(histogram, by, legend string) []query {
	all := make([]query, 0, 2)
	for _, q := range []struct{ number, name string }{{"0.5", "p50"}, {"0.99", "p99"}} {
		expression := "histogram_quantile(" + q.number + ", sum by (" + by + "le) (rate(" + histogram + "_bucket{%s}[$__rate_interval])))"
		all = append(all, query{expression, q.name + legend})
	}
	return all
}

func graph(title, about, unit string, queries ...query) *timeseries.PanelBuilder {
	panel := timeseries.NewPanelBuilder().
		Title(title).Description(about).Unit(unit).Min(0).
		Datasource(datasource()).Span(half).Height(height).
		FillOpacity(10).ShowPoints(common.VisibilityModeNever).
		Legend(common.NewVizLegendOptionsBuilder().
			DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom).ShowLegend(true)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending))
	for ref, query := range queries {
		panel = panel.WithTarget(query.target(ref))
	}
	return panel
}

func stacked(panel *timeseries.PanelBuilder) *timeseries.PanelBuilder {
	return panel.FillOpacity(60).
		Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal))
}

// A number, which becomes red at `bad`, from below or from above.
func number(title, about, expression string, colors ...dashboard.Threshold) *stat.PanelBuilder {
	return stat.NewPanelBuilder().
		Title(title).Description(about).
		Datasource(datasource()).Span(narrow).Height(low).
		ColorMode(common.BigValueColorModeValue).GraphMode(common.BigValueGraphModeArea).
		Thresholds(dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(colors)).
		WithTarget(query{expression, ""}.target(0))
}

func goodFrom(value float64) []dashboard.Threshold {
	return []dashboard.Threshold{{Color: "red"}, {Value: &value, Color: "green"}}
}

func badFrom(value float64) []dashboard.Threshold {
	return []dashboard.Threshold{{Color: "green"}, {Value: &value, Color: "red"}}
}

func plain() []dashboard.Threshold { return []dashboard.Threshold{{Color: "blue"}} }

func labelValues(name, label, metric string) *dashboard.QueryVariableBuilder {
	return dashboard.NewQueryVariableBuilder(name).
		Label(name).Datasource(datasource()).
		Query(dashboard.StringOrMap{String: cog.ToPtr(fmt.Sprintf("label_values(%s, %s)", metric, label))}).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
		Sort(dashboard.VariableSortAlphabeticalAsc)
}

func newDashboard(uid, title, about string) *dashboard.DashboardBuilder {
	return dashboard.NewDashboardBuilder(title).
		Uid(uid).Description(about).Tags([]string{"beatkeeper"}).
		Readonly().Refresh("30s").Time("now-3h", "now").Timezone("browser").
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("data source").Type("prometheus")).
		WithVariable(labelValues("namespace", "namespace", "beatkeeper_leader")).
		WithVariable(labelValues("job", "job", `beatkeeper_leader{namespace="$namespace"}`))
}

func operator() *dashboard.DashboardBuilder {
	lag := graph("Prune lag", "From an instance's deadline until the API server confirms that it left its slice.",
		units.Seconds, quantiles("beatkeeper_prune_lag_seconds", "", "")...)
	latency := graph("API latency", "Time until the API server answers a call, without the time in the queue.",
		units.Seconds, quantiles("beatkeeper_api_call_duration_seconds", "kind, verb, ", " {{verb}} {{kind}}")...)
	wait := graph("Queue of API calls", "Time that calls wait for one of the places of --max-parallel-api-calls.",
		units.Seconds, quantiles("beatkeeper_api_call_wait_seconds", "lane, ", " {{lane}}")...)
	steps := graph("Steps of a reconciliation", "Duration of each step.",
		units.Seconds, quantiles("beatkeeper_reconcile_duration_seconds", "step, ", " {{step}}")...)
	return newDashboard("beatkeeper-operator", "Beatkeeper / Operator", "The replicas of the operator: who leads, how fast it prunes, and what it asks of the API server.").
		WithPanel(number("Leaders", "Replicas that lead: 1. With 0, nothing is added or pruned.", "sum(beatkeeper_leader{%s})", goodFrom(1)...)).
		WithPanel(number("Replicas", "Replicas that answer scrapes.", "count(beatkeeper_leader{%s})", plain()...)).
		WithPanel(number("Age of the proof", "Of the leader, in seconds.", "max(beatkeeper_path_proof_age_seconds{%[1]s} and on (instance) beatkeeper_leader{%[1]s} == 1)", badFrom(60)...)).
		WithPanel(number("Missing rights", "Kinds that the operator may not read.", "sum(beatkeeper_unreadable{%s}) or vector(0)", badFrom(1)...)).
		WithPanel(stacked(graph("Leader", "1 for the replica that leads.", units.Short, query{"sum by (pod) (beatkeeper_leader{%s})", "{{pod}}"}))).
		WithPanel(graph("Age of the last proof", "Time since the last proof that beats can arrive. While it is long, no instance is pruned.", units.Seconds, query{"max by (pod) (beatkeeper_path_proof_age_seconds{%s})", "{{pod}}"})).
		WithPanel(lag).
		WithPanel(graph("Prunes", "Instances that were pruned, a second.", units.OpsPerSecond, query{"sum(rate(beatkeeper_prune_lag_seconds_count{%s}[$__rate_interval]))", "prunes"})).
		WithPanel(latency).
		WithPanel(stacked(graph("Writes by kind and result", "Each attempt is counted.", units.OpsPerSecond, query{"sum by (kind, result) (rate(beatkeeper_api_writes_total{%s}[$__rate_interval]))", "{{kind}} {{result}}"}))).
		WithPanel(wait).
		WithPanel(steps).
		WithPanel(graph("Failed steps", "Steps that failed and are retried, and reconciliations that panicked.", units.OpsPerSecond,
			query{"sum by (step) (rate(beatkeeper_reconcile_errors_total{%s}[$__rate_interval]))", "{{step}}"},
			query{"sum(rate(beatkeeper_reconcile_panics_total{%s}[$__rate_interval]))", "panic"})).
		WithPanel(graph("Watch restarts", "Watches that broke or could not start, a second.", units.OpsPerSecond, query{"sum by (kind) (rate(beatkeeper_watch_restarts_total{%s}[$__rate_interval]))", "{{kind}}"})).
		WithPanel(graph("Last event of each watch", "It is long for a kind that rarely changes.", units.Seconds, query{"max by (kind) (beatkeeper_watch_last_event_age_seconds{%s})", "{{kind}}"})).
		WithPanel(graph("Gaps and rollbacks", "Gaps in the proof, and times that the store went back, in the range of a rate.", units.Short,
			query{"sum by (pod) (increase(beatkeeper_path_gaps_total{%s}[$__rate_interval]))", "gaps {{pod}}"},
			query{"max(increase(beatkeeper_store_rollbacks_total{%s}[$__rate_interval]))", "rollbacks"})).
		WithPanel(graph("Memory", "Resident memory of each replica.", units.BytesIEC, query{"sum by (pod) (process_resident_memory_bytes{%s})", "{{pod}}"})).
		WithPanel(graph("Processor time", "Cores that each replica uses.", units.Short, query{"sum by (pod) (rate(process_cpu_seconds_total{%s}[$__rate_interval]))", "{{pod}}"})).
		WithPanel(graph("Leases in memory", "Heartbeat Leases that each replica keeps in memory.", units.Short, query{"sum by (pod) (beatkeeper_known_leases{%s})", "{{pod}}"})).
		WithPanel(graph("Unreadable objects", "Objects that exist and cannot be decoded. The log names them.", units.Short, query{"max by (kind) (beatkeeper_unreadable_objects{%s})", "{{kind}}"}))
}

func registrations() *dashboard.DashboardBuilder {
	state := func(state string) string {
		return `sum(beatkeeper_instances{%s,state="` + state + `"})`
	}
	expired := table.NewPanelBuilder().
		Title("Most expired instances").
		Description("Registrations with the most expired instances. Needs the value metrics.perRegistration.").
		Datasource(datasource()).Span(half).Height(height).
		WithTarget(query{`topk(10, sum by (registration_namespace, registration) (beatkeeper_registration_instances{%s,state="Expired"}) > 0)`, ""}.target(0).
			Format(prometheus.PromQueryFormatTable).Instant())
	return newDashboard("beatkeeper-registrations", "Beatkeeper / Registrations", "The registrations and their instances: states, holds and beats.").
		WithPanel(number("Ready", "Instances that are published as ready.", state("Ready"), plain()...)).
		WithPanel(number("Expired", "Instances whose ttl has passed.", state("Expired"), badFrom(1)...)).
		WithPanel(number("Held", "Instances that are kept although they are silent.", state("Held"), badFrom(1)...)).
		WithPanel(number("Registrations", "ServiceRegistrations that the operator knows.", "sum(beatkeeper_registrations{%s})", plain()...)).
		WithPanel(stacked(graph("Instances by state", "", units.Short, query{"sum by (state) (beatkeeper_instances{%s})", "{{state}}"}))).
		WithPanel(stacked(graph("Holds by reason", "Instances that stay published although their ttl has passed.", units.Short, query{"sum by (reason) (beatkeeper_holds{%s})", "{{reason}}"}))).
		WithPanel(stacked(graph("Registrations by reason", "The reason of the condition Ready. Published means that all is well.", units.Short, query{"sum by (reason) (beatkeeper_registrations{%s})", "{{reason}}"}))).
		WithPanel(expired).
		WithPanel(graph("Beat intervals", "Time between two beats of one instance, as they arrive.", units.Seconds, quantiles("beatkeeper_beat_interval_seconds", "", "")...)).
		WithPanel(graph("Beats", "Beats a second. Each replica sees all beats; this is the replica that saw the most.", units.OpsPerSecond, query{"max(rate(beatkeeper_beats_total{%s}[$__rate_interval]))", "beats"})).
		WithPanel(graph("Instances by registration", "Ready instances of the ten largest registrations. Needs the value metrics.perRegistration.", units.Short,
			query{`topk(10, sum by (registration_namespace, registration) (beatkeeper_registration_instances{%s,state="Ready"}))`, "{{registration_namespace}}/{{registration}}"})).
		WithPanel(graph("Swept Leases", "Leases a second that were deleted because their instances had been dead for ten ttls.", units.OpsPerSecond, query{"sum(rate(beatkeeper_swept_leases_total{%s}[$__rate_interval]))", "swept"}))
}

func write(folder, name string, builder *dashboard.DashboardBuilder) error {
	built, err := builder.Build()
	if err != nil {
		return err
	}
	// Links to a panel name it by its number.
	for n, panel := range built.Panels {
		panel.Panel.Id = cog.ToPtr(uint32(n + 1))
	}
	text, err := json.MarshalIndent(built, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, name+".json"), append(text, '\n'), 0o644)
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dashboards FOLDER")
		os.Exit(2)
	}
	for name, builder := range map[string]*dashboard.DashboardBuilder{"operator": operator(), "registrations": registrations()} {
		if err := write(os.Args[1], name, builder); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
