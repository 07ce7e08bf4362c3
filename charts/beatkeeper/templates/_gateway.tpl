{{/* Name of the gateways' objects. */}}
{{- define "beatkeeper.gatewayName" -}}
{{ include "beatkeeper.fullname" . }}-gateway
{{- end }}

{{/* What selects the gateways' Pods. */}}
{{- define "beatkeeper.gatewaySelector" -}}
{{- range $values, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels "gateway.podLabels" .Values.gateway.podLabels -}}
{{- range $label := list "beatkeeper.dev/gateway" "beatkeeper.dev/operator" "beatkeeper.dev/console" -}}
{{- if and (hasKey ($labels | default dict) $label) (or (eq $values "gateway.podLabels") (eq $label "beatkeeper.dev/gateway")) -}}
{{- fail (printf "%s must not set %s, by which Pods are selected" $values $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
beatkeeper.dev/gateway: {{ include "beatkeeper.fullname" . }}
{{- end }}

{{/* Name of the Service by which gateways are scraped. A Service's name may have 63 characters. */}}
{{- define "beatkeeper.gatewayMetrics" -}}
{{ include "beatkeeper.fullname" . | trunc 47 | trimSuffix "-" }}-gateway-metrics
{{- end }}

{{/* Fewest gateways that the values ask for. */}}
{{- define "beatkeeper.gatewayReplicas" -}}
{{- with .Values.gateway -}}
{{- ternary .autoscaling.minReplicas .replicas .autoscaling.enabled | int -}}
{{- end -}}
{{- end }}

{{/* The Secret with the certificate that instances see. */}}
{{- define "beatkeeper.gatewaySecret" -}}
{{- default (include "beatkeeper.gatewayName" .) .Values.gateway.certificate.existingSecret -}}
{{- end }}

{{/* The Secret with the certificate of the gateways' streams. */}}
{{- define "beatkeeper.gatewayStreamsSecret" -}}
{{- default (printf "%s-streams" (include "beatkeeper.gatewayName" .)) .Values.gateway.certificate.streamsSecret -}}
{{- end }}

{{/* The Secret with the certificate that the operator shows to gateways. */}}
{{- define "beatkeeper.gatewayOperatorSecret" -}}
{{- default (printf "%s-operator" (include "beatkeeper.gatewayName" .)) .Values.gateway.certificate.operatorSecret -}}
{{- end }}

{{/* The names by which instances reach the gateways, and what its values add. */}}
{{- define "beatkeeper.gatewayDnsNames" -}}
{{- $service := include "beatkeeper.gatewayName" . -}}
{{- $namespace := include "beatkeeper.namespace" . -}}
{{- $names := list $service (printf "%s.%s" $service $namespace) (printf "%s.%s.svc" $service $namespace) -}}
{{- $names = append $names (printf "%s.%s.svc.%s" $service $namespace .Values.gateway.certificate.clusterDomain) -}}
{{- toYaml (concat $names .Values.gateway.certificate.dnsNames | uniq) -}}
{{- end }}

{{/* The certificates that no Secret of the values has, each with its Secret: what cert-manager or the chart makes. */}}
{{- define "beatkeeper.gatewayCertificates" -}}
{{- $certificate := .Values.gateway.certificate -}}
{{- if ne (empty $certificate.streamsSecret) (empty $certificate.operatorSecret) -}}
{{- fail "gateway.certificate.streamsSecret and gateway.certificate.operatorSecret belong together: set both or none, since both ends of a stream have to trust one CA" -}}
{{- end -}}
{{- if lt (int $certificate.caLifetimeDays) (mul 3 $certificate.lifetimeDays | int) -}}
{{- fail "gateway.certificate.caLifetimeDays must be three times gateway.certificate.lifetimeDays at least: otherwise a certificate could outlive its CA" -}}
{{- end -}}
{{- $all := list -}}
{{- if not $certificate.existingSecret -}}
{{- $all = append $all (dict "for" "instances" "secret" (include "beatkeeper.gatewaySecret" .) "dnsNames" (include "beatkeeper.gatewayDnsNames" . | fromYamlArray) "ipAddresses" $certificate.ipAddresses) -}}
{{- end -}}
{{- if not $certificate.streamsSecret -}}
{{- $all = append $all (dict "for" "streams" "secret" (include "beatkeeper.gatewayStreamsSecret" .) "dnsNames" (list "beatkeeper-gateway") "ipAddresses" list) -}}
{{- $all = append $all (dict "for" "operator" "secret" (include "beatkeeper.gatewayOperatorSecret" .) "dnsNames" (list "beatkeeper-operator") "ipAddresses" list) -}}
{{- end -}}
{{- if and (has "beatkeeper-operator" $certificate.dnsNames) (not $certificate.existingSecret) -}}
{{- fail "gateway.certificate.dnsNames must not have beatkeeper-operator: gateways take a process with this name for the operator" -}}
{{- end -}}
{{- toYaml $all -}}
{{- end }}

{{/* Fails where instances would see a certificate of another CA than the gateways show now, unless the values allow it. */}}
{{- define "beatkeeper.gatewayKnownCA" -}}
{{- $namespace := include "beatkeeper.namespace" . -}}
{{- $own := include "beatkeeper.gatewayName" . -}}
{{- $gateways := lookup "apps/v1" "Deployment" $namespace $own | default dict -}}
{{- $pod := (($gateways.spec | default dict).template | default dict).spec | default dict -}}
{{- $shown := "" -}}
{{- range $pod.volumes -}}
{{- if eq .name "beats-certificate" -}}{{- $shown = .secret.secretName -}}{{- end -}}
{{- end -}}
{{- /* Without gateways no instance is cut off. */ -}}
{{- if and $shown (not .Values.gateway.certificate.allowNewCA) -}}
{{- $from := "" -}}
{{- $to := "" -}}
{{- if ne $shown $own -}}
{{- $from = "the Secret that gateway.certificate.existingSecret named" -}}
{{- else -}}
{{- $marks := ((lookup "v1" "Secret" $namespace $own | default dict).metadata | default dict).annotations | default dict -}}
{{- with index $marks "cert-manager.io/issuer-name" -}}{{- $from = printf "the issuer %s of cert-manager" . -}}{{- end -}}
{{- if index $marks "beatkeeper.dev/issuer" -}}{{- $from = "the CA that the chart has made" -}}{{- end -}}
{{- end -}}
{{- with .Values.gateway.certificate -}}
{{- $ca := lookup "v1" "Secret" $namespace (printf "%s-ca" $own) | default dict -}}
{{- $made := $ca.data | default dict -}}
{{- if eq .existingSecret $own -}}
{{- $to = $from -}}
{{- else if .existingSecret -}}
{{- $to = "the Secret that gateway.certificate.existingSecret named" -}}
{{- else if .certManager.enabled -}}
{{- $to = printf "the issuer %s of cert-manager" (.certManager.issuerRef.name | default (printf "%s-ca" $own)) -}}
{{- else if and (index $made "tls.crt") (index $made "tls.key") (index (($ca.metadata | default dict).annotations | default dict) "beatkeeper.dev/expires") -}}
{{- $to = "the CA that the chart has made" -}}
{{- else -}}
{{- $to = printf "a new CA of the chart, since the Secret %s-ca is gone" $own -}}
{{- end -}}
{{- end -}}
{{- if and $from (ne $from $to) -}}
{{- fail (printf "the certificate that instances see would come from another CA, and no instance that trusts the former one could beat at the gateways: it came from %s, and would come from %s. (1) Set carrier: Lease in the registrations. (2) Wait five minutes and the longest ttl. (3) Upgrade with gateway.certificate.allowNewCA=true. (4) Distribute the new CA to the instances. (5) Set carrier: Gateway again (docs/gateway.md, \"Another CA\")" $from $to) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* How many gateways run, if an autoscaler sets their number. A number that is left out after it was set becomes 1. So the
one that the autoscaler has set is kept. Without a cluster it is empty, as at the first installation. */}}
{{- define "beatkeeper.gatewayLiveReplicas" -}}
{{- $live := lookup "apps/v1" "Deployment" (include "beatkeeper.namespace" .) (include "beatkeeper.gatewayName" .) | default dict -}}
{{- $spec := $live.spec | default dict -}}
{{- if hasKey $spec "replicas" -}}{{- int $spec.replicas -}}{{- end -}}
{{- end }}

{{/* The milliseconds of a duration, such as 1m30s. */}}
{{- define "beatkeeper.milliseconds" -}}
{{- $all := 0 -}}
{{- range regexFindAll "[0-9]+(ms|h|m|s)" . -1 -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- $of := dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1 -}}
{{- $all = add $all (mul (trimSuffix $unit . | int64) (get $of $unit)) -}}
{{- end -}}
{{- $all -}}
{{- end }}
