{{- define "scopegate.name" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "scopegate.selector" -}}
app.kubernetes.io/name: scopegate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "scopegate.labels" -}}
{{ include "scopegate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "scopegate.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "scopegate.claim" -}}
{{ default (printf "%s-data" (include "scopegate.name" .)) .Values.persistence.existingClaim }}
{{- end -}}

{{- define "scopegate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "scopegate.locked" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{- /* The etcd of the replicas, for `serve` and for `replicas init`. */ -}}
{{- define "scopegate.etcd" -}}
{{- with .Values.replicas.etcd -}}
{{- $nodes := join "," .endpoints -}}
- name: SCOPEGATE_REPLICATE
  value: {{ printf "%s://%s/%s%s" (ternary "etcds" "etcd" (ne .tlsSecretName "")) $nodes .prefix (ternary "" (printf "?%s" .parameters) (eq .parameters "")) | quote }}
{{- if .tlsSecretName }}
- { name: SCOPEGATE_REPLICATE_CA, value: /etcd-tls/ca.crt }
- { name: SCOPEGATE_REPLICATE_CERT, value: /etcd-tls/tls.crt }
- { name: SCOPEGATE_REPLICATE_KEY, value: /etcd-tls/tls.key }
{{- end }}
{{- end -}}
{{- end -}}

{{- /* Kubernetes' own gRPC probe speaks no TLS: with TLS it is `scopegate health`, which asks where
SCOPEGATE_LISTEN says and trusts the certificate of SCOPEGATE_TLS_CERT. */ -}}
{{- define "scopegate.readiness" -}}
{{- if .Values.tls.secretName -}}
exec: { command: [/scopegate, health, --timeout, "2s"] }
{{- else -}}
grpc: { port: 50051 }
{{- end -}}
{{- end -}}

{{- /* The service `live` serves also while calls are not answered: a restart helps only if the process
does not answer at all. */ -}}
{{- define "scopegate.liveness" -}}
{{- if .Values.tls.secretName -}}
exec: { command: [/scopegate, health, --service, live, --timeout, "2s"] }
{{- else -}}
grpc: { port: 50051, service: live }
{{- end -}}
{{- end -}}

{{- /* A cluster gets its first key only when it begins, which is when the release is installed. */ -}}
{{- define "scopegate.makesFirstKey" -}}
{{- $begins := and .Release.IsInstall .Values.replicas.begin -}}
{{- if and .Values.firstKey.enabled (or $begins (not .Values.replicas.enabled)) }}true{{ end -}}
{{- end -}}
