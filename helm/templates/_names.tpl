{{/* Names and labels. */}}
{{- define "sidekey.name" -}}
{{- default "sidekey" .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "sidekey.fullname" -}}
{{- $name := include "sidekey.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "sidekey.controlPlaneName" -}}
{{- include "sidekey.fullname" . }}-control-plane
{{- end }}

{{- define "sidekey.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sidekey.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/* What selects pods, and never changes: list CONTEXT COMPONENT. */}}
{{- define "sidekey.selector" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: {{ include "sidekey.name" $context }}
app.kubernetes.io/instance: {{ $context.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "sidekey.labels" -}}
{{- $context := index . 0 -}}
{{ include "sidekey.selector" . }}
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $context.Chart.Name $context.Chart.Version | replace "+" "_" }}
{{- with $context.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Whether clients connect over TCP; to a Unix socket in a pod of another chart else. */}}
{{- define "sidekey.listensOnTcp" -}}
{{- if not (hasKey .Values.config "listen") }}true{{ end -}}
{{- end }}

{{/* repository:tag or repository@digest: list IMAGE DEFAULT-TAG. */}}
{{- define "sidekey.imageName" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default (index . 1) $image.tag }}
{{- end -}}
{{- end }}
