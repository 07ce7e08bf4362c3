// An OpenTelemetry collector for the tests: it receives OTLP over HTTP, and writes what it has received to its standard
// output, as one JSON object a line, in the encoding of OTLP.
//
// Service, receiver and data model are those of the collector. Only the exporter is ours, since the module of the file
// exporter needs modules that not every proxy has.
package main

import (
	"context"
	"log"
	"os"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry"
	"go.uber.org/zap"
)

// An exporter that writes lines.
type lines struct {
	component.StartFunc
	component.ShutdownFunc
	consumer.ConsumeTracesFunc
}

func (lines) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

func newLines(context.Context, exporter.Settings, component.Config) (exporter.Traces, error) {
	var whole sync.Mutex
	var encoding ptrace.JSONMarshaler
	write := func(_ context.Context, traces ptrace.Traces) error {
		line, err := encoding.MarshalTraces(traces)
		if err != nil {
			return err
		}
		whole.Lock()
		defer whole.Unlock()
		_, err = os.Stdout.Write(append(line, '\n'))
		return err
	}
	return lines{ConsumeTracesFunc: write}, nil
}

func noConfig() component.Config { return &struct{}{} }

func factories() (otelcol.Factories, error) {
	receivers, err := otelcol.MakeFactoryMap[receiver.Factory](otlpreceiver.NewFactory())
	if err != nil {
		return otelcol.Factories{}, err
	}
	stdout := exporter.NewFactory(component.MustNewType("lines"), noConfig,
		exporter.WithTraces(newLines, component.StabilityLevelDevelopment))
	exporters, err := otelcol.MakeFactoryMap[exporter.Factory](stdout)
	if err != nil {
		return otelcol.Factories{}, err
	}
	logger := func(context.Context, telemetry.LoggerSettings, component.Config) (*zap.Logger, component.ShutdownFunc, error) {
		logger, err := zap.NewProduction()
		return logger, nil, err
	}
	return otelcol.Factories{
		Receivers: receivers,
		Exporters: exporters,
		Telemetry: telemetry.NewFactory(noConfig, telemetry.WithCreateLogger(logger)),
	}, nil
}

func main() {
	settings := otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{Command: "otel-collector", Description: "for the tests of Beatkeeper"},
		Factories: factories,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{
			ResolverSettings: confmap.ResolverSettings{
				ProviderFactories: []confmap.ProviderFactory{yamlprovider.NewFactory()},
				DefaultScheme:     "yaml",
			},
		},
	}
	if err := otelcol.NewCommand(settings).Execute(); err != nil {
		log.Fatal(err)
	}
}
