{{/* The chart's part of names, and what is labelled as the app. */}}
{{- define "beatkeeper.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{/* Namespace of all that the release makes, unless values name others. */}}
{{- define "beatkeeper.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end }}

{{/* Name of the release's objects: the release's name, with the chart's where it does not hold it already. */}}
{{- define "beatkeeper.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "beatkeeper.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "beatkeeper.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Name of what lives in no namespace: no two releases may meet. No namespace has a dot in its name, so nothing else gives the same. */}}
{{- define "beatkeeper.clusterName" -}}
{{- $name := include "beatkeeper.fullname" . -}}
{{- $namespace := include "beatkeeper.namespace" . -}}
{{- if eq $name $namespace -}}{{ $name }}{{- else -}}{{ printf "%s.%s" $namespace $name }}{{- end -}}
{{- end }}

{{/*
What selects the operator's Pods; never changes, because a Deployment's selector cannot. A label of our own, which hangs on
the Deployment's name alone: tools write others, such as app.kubernetes.io/instance, over what is rendered.
*/}}
{{- define "beatkeeper.selectorLabels" -}}
{{- range $name := list "commonLabels" "podLabels" -}}
{{- if hasKey (index $.Values $name | default dict) "beatkeeper.dev/operator" -}}
{{- fail (printf "%s must not set beatkeeper.dev/operator, by which the operator's Pods are selected" $name) -}}
{{- end -}}
{{- end -}}
beatkeeper.dev/operator: {{ include "beatkeeper.fullname" . }}
{{- end }}

{{/* The labels of all objects. Nothing selects by them, so they may be set to anything. */}}
{{- define "beatkeeper.labels" -}}
{{- $labels := dict
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/name" (include "beatkeeper.name" .)
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service -}}
{{- toYaml (mergeOverwrite $labels (.Values.commonLabels | default dict)) }}
{{- end }}

{{/* The same, and others: a list of what there is, and the others. */}}
{{- define "beatkeeper.labelsAnd" -}}
{{- toYaml (mergeOverwrite (include "beatkeeper.labels" (first .) | fromYaml) (last . | default dict)) }}
{{- end }}

{{- define "beatkeeper.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "beatkeeper.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/* The image, from the registry that all charts of a release shall take, or else from its own, if one is named. */}}
{{- define "beatkeeper.image" -}}
{{- $repository := .Values.image.repository -}}
{{- with default .Values.image.registry (.Values.global).imageRegistry -}}
{{- /* What stands before the first slash is a registry if it is a host, as container engines tell it. */ -}}
{{- $path := regexReplaceAll "^(localhost|[^/]*[.:][^/]*)/" $repository "" -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $path -}}
{{- end -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{/* The pull secrets of all charts of a release, where a plain name stands for { name: … }, and those of this one. */}}
{{- define "beatkeeper.imagePullSecrets" -}}
{{- $all := list -}}
{{- range concat ((.Values.global).imagePullSecrets | default list) (.Values.imagePullSecrets | default list) -}}
{{- $all = append $all (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end -}}
{{- with uniq $all -}}
imagePullSecrets: {{- toYaml . | nindent 0 }}
{{- end -}}
{{- end }}

{{/*
A security context without what is unset, which leaves a number to the cluster, as OpenShift wants it. Empty where it is
switched off.
*/}}
{{- define "beatkeeper.set" -}}
{{- $set := dict -}}
{{- if ne (toString (. | default dict).enabled) "false" -}}
{{- range $key, $value := omit (. | default dict) "enabled" }}{{ if not (has $value (list nil "")) }}{{ $_ := set $set $key $value }}{{ end }}{{ end -}}
{{- end -}}
{{- toYaml $set -}}
{{- end }}

{{/* Where all Pods look names up. In a Node's network, ClusterFirst would mean the Node's own resolver. */}}
{{- define "beatkeeper.dns" -}}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases: {{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{/* The network of the operator's Pods and of the test's. */}}
{{- define "beatkeeper.network" -}}
{{- if .Values.hostNetwork }}
hostNetwork: true
{{- if not .Values.dnsPolicy }}
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
{{- end }}
{{- include "beatkeeper.dns" . }}
{{- end }}

{{/* Which runtime and which scheduler the Pods of the Deployments have. */}}
{{- define "beatkeeper.scheduling" -}}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- end }}

{{/*
How the operator's Pods are replaced. In a Node's network a new replica finds no Node where each has one already, and would
wait for the old one forever.
*/}}
{{- define "beatkeeper.strategy" -}}
{{- $elected := include "beatkeeper.leaderElect" . -}}
{{- $own := .Values.updateStrategy -}}
{{- if and $own (not $elected) (ne (default "RollingUpdate" $own.type) "Recreate") -}}
{{- fail "updateStrategy must be { type: Recreate } where leaderElection.enabled is false: without an election two operators must not run side by side" -}}
{{- end -}}
{{- if $own -}}
{{- toYaml $own -}}
{{- else if not $elected -}}
# Without an election two must not run side by side.
type: Recreate
{{- else if .Values.hostNetwork -}}
# A Node has ports for one replica.
rollingUpdate: { maxSurge: 0, maxUnavailable: 1 }
{{- else -}}
# A new replica is warm before an old one goes.
rollingUpdate: { maxSurge: 1, maxUnavailable: 0 }
{{- end -}}
{{- end }}

{{/*
"true" where the policy is installed. The values alone decide, never what discovery says: `helm template`, and with it most
GitOps tools, asks no cluster, and would leave the policy out without a word.
*/}}
{{- define "beatkeeper.admissionPolicy" -}}
{{- if ne (toString .Values.admissionPolicy.enabled) "false" -}}
true
{{- else if .Values.admissionPolicy.requireBeatPermission -}}
{{- fail "admissionPolicy.requireBeatPermission needs admissionPolicy.enabled: without the policy nothing asks for the permission" -}}
{{- end -}}
{{- end }}

{{/* Whether several replicas share the work. */}}
{{- define "beatkeeper.leaderElect" -}}
{{- if or .Values.leaderElection.enabled (gt (int .Values.replicas) 1) -}}true{{- end -}}
{{- end }}

{{/* What limits a policy to the namespaces that the operator watches. */}}
{{- define "beatkeeper.namespaceSelector" -}}
{{- with .Values.watchNamespaces }}
namespaceSelector:
  matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: In
    values: {{ toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{/* What the operator does in a namespace that it watches; all of it is called by src/controller. */}}
{{- define "beatkeeper.watchRules" -}}
# Heartbeats: watched, read live before an instance is pruned, and deleted when the instance has been dead for long. A
# recreated Lease is patched, so that it again has the cordon that a person has put on its instance.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [beatkeeper.dev]
  resources: [serviceregistrations]
  verbs: [list, watch]
- apiGroups: [beatkeeper.dev]
  resources: [serviceregistrations/status]
  verbs: [get, patch]
# What the admission policy asks for. It exempts the operator by its name as well, and that holds no longer where a tool moves
# what is rendered to another namespace.
- apiGroups: [beatkeeper.dev]
  resources: [serviceregistrations]
  verbs: [cordon]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch, create, update, delete]
- apiGroups: [""]
  resources: [endpoints]
  verbs: [get, list, watch, create, update, delete]
# OpenShift requires these rights for writing addresses of Pods (admission plugin RestrictedEndpointsAdmission). No other API
# server knows them.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices/restricted]
  verbs: [create]
- apiGroups: [""]
  resources: [endpoints/restricted]
  verbs: [create]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
{{- if .Values.readinessGate.enabled }}
# The condition of Pods that ask for the readiness gate beatkeeper.dev/published.
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
{{- end }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/*
Name of an object that may lie in another namespace, as a Prometheus or a Grafana may want it: a list of what there is, and
that namespace. There two releases of one name must not meet.
*/}}
{{- define "beatkeeper.nameIn" -}}
{{- $name := include "beatkeeper.fullname" (first .) -}}
{{- $own := include "beatkeeper.namespace" (first .) -}}
{{- if has (last .) (list nil "" $own) -}}{{ $name }}{{- else -}}{{ printf "%s-%s" $own $name }}{{- end -}}
{{- end }}

{{/* What selects the series of this release in PromQL: the labels that the Prometheus operator gives them. */}}
{{- define "beatkeeper.seriesSelector" -}}
{{- $metrics := .Values.metrics -}}
{{- if $metrics.prometheusRule.selector -}}
{{- $metrics.prometheusRule.selector -}}
{{- else if $metrics.serviceMonitor.enabled -}}
namespace="{{ include "beatkeeper.namespace" . }}",job="{{ include "beatkeeper.fullname" . }}-metrics"
{{- else if $metrics.podMonitor.enabled -}}
{{- $namespace := default (include "beatkeeper.namespace" .) $metrics.podMonitor.namespace -}}
namespace="{{ include "beatkeeper.namespace" . }}",job="{{ $namespace }}/{{ include "beatkeeper.nameIn" (list . $metrics.podMonitor.namespace) }}"
{{- else -}}
{{- fail "metrics.prometheusRule needs metrics.serviceMonitor or metrics.podMonitor, or metrics.prometheusRule.selector, which says by which labels your scrapes mark this release" -}}
{{- end -}}
{{- end }}

{{/* The same of this release's gateways. */}}
{{- define "beatkeeper.gatewaySeriesSelector" -}}
{{- $metrics := .Values.metrics -}}
{{- if $metrics.prometheusRule.gatewaySelector -}}
{{- $metrics.prometheusRule.gatewaySelector -}}
{{- else if $metrics.prometheusRule.selector -}}
{{- fail "metrics.prometheusRule.selector is set and the release has gateways: set metrics.prometheusRule.gatewaySelector, which says by which labels your scrapes mark the gateways" -}}
{{- else if $metrics.serviceMonitor.enabled -}}
namespace="{{ include "beatkeeper.namespace" . }}",job="{{ include "beatkeeper.gatewayMetrics" . }}"
{{- else if $metrics.podMonitor.enabled -}}
{{- $namespace := default (include "beatkeeper.namespace" .) $metrics.podMonitor.namespace -}}
namespace="{{ include "beatkeeper.namespace" . }}",job="{{ $namespace }}/{{ include "beatkeeper.nameIn" (list . $metrics.podMonitor.namespace) }}-gateway"
{{- end -}}
{{- end }}

{{/* Fails where an alert would fire of a certificate that nothing renews yet. */}}
{{- define "beatkeeper.gatewayCertificateDays" -}}
{{- $alert := "BeatkeeperGatewayCertificateExpires" -}}
{{- $days := (index .Values.metrics.prometheusRule.alerts $alert).days -}}
{{- $life := .Values.gateway.certificate.lifetimeDays -}}
{{- $made := include "beatkeeper.gatewayCertificates" . | fromYamlArray -}}
{{- if and $made (not (has $alert .Values.metrics.prometheusRule.disabled)) (ge (mulf $days 3) (float64 $life)) -}}
{{- fail (printf "metrics.prometheusRule.alerts.%s.days must be less than a third of gateway.certificate.lifetimeDays: a certificate is not renewed before the last third of its time" $alert) -}}
{{- end -}}
{{- end }}

{{/* What a ServiceMonitor and a PodMonitor say of their one endpoint: a list of what there is, their values, and which it is. */}}
{{- define "beatkeeper.endpoint" -}}
port: metrics
{{- $root := first . }}
{{- $secure := $root.Values.metrics.secure }}
{{- if $secure.enabled }}
scheme: https
{{- if $secure.tokenSecret }}
authorization: { type: Bearer, credentials: { name: {{ required "metrics.secure.tokenSecret needs a name" $secure.tokenSecret.name | quote }}, key: {{ default "token" $secure.tokenSecret.key | quote }} } }
{{- else if eq (last .) "podMonitor" }}
{{- fail "metrics.podMonitor with metrics.secure needs metrics.secure.tokenSecret: a PodMonitor cannot send the token of the ServiceAccount of Prometheus; a ServiceMonitor can" }}
{{- else }}
bearerTokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
{{- end }}
{{- if $secure.tlsConfig }}
tlsConfig: {{- toYaml $secure.tlsConfig | nindent 2 }}
{{- else if $secure.certificateSecret }}
tlsConfig:
  ca: { secret: { name: {{ $secure.certificateSecret }}, key: ca.crt } }
  serverName: {{ include "beatkeeper.fullname" $root }}-metrics.{{ include "beatkeeper.namespace" $root }}.svc
{{- else }}
tlsConfig: { insecureSkipVerify: true }
{{- end }}
{{- end }}
{{- include "beatkeeper.scrapes" (index . 1) }}
{{- end }}

{{/* How often a monitor scrapes, and what it makes of it: its values. */}}
{{- define "beatkeeper.scrapes" -}}
{{- with . }}
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .relabelings }}
relabelings: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings: {{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}
{{- end }}
