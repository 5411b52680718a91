{{- define "jetmesh.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "jetmesh.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "jetmesh.labels" -}}
{{ include "jetmesh.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "jetmesh.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* The configuration: that of the values, and over it what belongs to the pod. */}}
{{- define "jetmesh.config" -}}
{{- if not .Values.config.handlers }}{{ required "config.handlers: there is no handler; name at least one, as values.yaml shows" "" }}{{ end }}
{{- $nats := dict "url" .Values.nats.url }}
{{- if eq .Values.nats.credentials.kind "creds" }}{{ $_ := set $nats "creds" "/etc/jetmesh/nats/host.creds" }}{{ end }}
{{- if eq .Values.nats.credentials.kind "nkey" }}{{ $_ := set $nats "nkey" "/etc/jetmesh/nats/host.nk" }}{{ end }}
{{- if .Values.nats.tls.secret }}
{{- $_ := set $nats "tls_ca" "/etc/jetmesh/nats-tls/ca.crt" }}
{{- if .Values.nats.tls.clientCertificate }}
{{- $_ := set $nats "tls_cert" "/etc/jetmesh/nats-tls/tls.crt" }}
{{- $_ := set $nats "tls_key" "/etc/jetmesh/nats-tls/tls.key" }}
{{- end }}
{{- end }}
{{- $admin := dict "listen" (printf "127.0.0.1:%d" (int .Values.admin.port)) }}
{{- if .Values.admin.tlsSecret }}
{{- $admin = dict "listen" (printf "0.0.0.0:%d" (int .Values.admin.port)) "tls_cert" "/etc/jetmesh/admin/tls.crt" "tls_key" "/etc/jetmesh/admin/tls.key" "metrics_token_file" "/etc/jetmesh/metrics/token" }}
{{- end }}
{{- if .Values.admin.names }}{{ $_ := set $admin "names" .Values.admin.names }}{{ end }}
{{- $own := dict "drain_timeout" (printf "%ds" (int .Values.drainSeconds)) "nats" $nats "admin" $admin }}
{{- if .Values.cache.enabled }}{{ $_ := set $own "modules" (dict "cache" "/var/cache/jetmesh/compiled") }}{{ end }}
{{- include "jetmesh.table" (dict "path" "" "table" (mustMergeOverwrite (deepCopy .Values.config) $own)) | trim }}
{{- end }}

{{- /* A table of TOML with the tables in it. Texts, numbers, booleans and lists are written in TOML as in JSON. toToml of Helm makes 16.0 of 16. */}}
{{- define "jetmesh.table" -}}
{{- $path := .path }}
{{- range $key, $value := .table }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ include "jetmesh.key" $key }} = {{ toRawJson $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}
{{- $inner := printf "%s%s" $path (include "jetmesh.key" $key) }}

[{{ $inner }}]
{{- include "jetmesh.table" (dict "path" (printf "%s." $inner) "table" $value) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "jetmesh.key" -}}
{{ if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toRawJson . }}{{ end }}
{{- end }}

{{- /* One probe: a command in the pod, or a request of the kubelet. */}}
{{- define "jetmesh.probe" -}}
{{- if .root.Values.admin.tlsSecret -}}
httpGet: {path: {{ .path }}, port: admin, scheme: HTTPS}
{{- else -}}
exec: {command: [/usr/local/bin/jetmesh, health, {{ .what }}]}
{{- end }}
timeoutSeconds: 6
{{- end }}
