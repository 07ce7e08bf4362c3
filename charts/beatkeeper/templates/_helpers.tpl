{{/* Name of the release's objects: the release's name, with the chart's where it does not hold it already. */}}
{{- define "beatkeeper.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Name of what lives in no namespace: two releases of one name must not meet. */}}
{{- define "beatkeeper.clusterName" -}}
{{- $name := include "beatkeeper.fullname" . -}}
{{- if eq $name .Release.Namespace -}}{{ $name }}{{- else -}}{{ printf "%s-%s" .Release.Namespace $name }}{{- end -}}
{{- end }}

{{/* What selects the operator's Pods; never changes, because a Deployment's selector cannot. */}}
{{- define "beatkeeper.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "beatkeeper.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "beatkeeper.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "beatkeeper.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "beatkeeper.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
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
# Heartbeats: watched, read live before anybody is pruned, and swept when long dead.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, delete]
- apiGroups: [beatkeeper.dev]
  resources: [serviceregistrations]
  verbs: [list, watch]
- apiGroups: [beatkeeper.dev]
  resources: [serviceregistrations/status]
  verbs: [get, patch]
# Where OwnerReferencesPermissionEnforcement is on, who names an owner that blocks its deletion needs this.
- apiGroups: [beatkeeper.dev]
  resources: [serviceregistrations/finalizers]
  verbs: [update]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch, create, update, delete]
- apiGroups: [""]
  resources: [endpoints]
  verbs: [get, list, watch, create, update, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
