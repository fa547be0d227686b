{{/* What both pods have. */}}
{{- define "sidekey.podSecurity" -}}
runAsNonRoot: true
{{- if not .Values.openshift }}
fsGroup: {{ int .Values.runAs.group }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{/* Over zones and nodes, as far as it goes: list CONTEXT COMPONENT. */}}
{{- define "sidekey.spread" -}}
{{- if (index . 0).Values.spread -}}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "sidekey.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "sidekey.placement" -}}
nodeSelector: {{ toJson .Values.nodeSelector }}
tolerations: {{ toJson .Values.tolerations }}
affinity: {{ toJson .Values.affinity }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
