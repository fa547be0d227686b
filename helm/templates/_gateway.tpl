{{/* The gateway: bound to loopback, without identity, with room for the headers that Sidekey sets. */}}

{{- define "sidekey.gatewayEnv" -}}
- { name: NODE_ENV, value: production }
- { name: NODE_OPTIONS, value: "--require=/etc/sidekey-gateway/gateway-preload.cjs --max-http-header-size={{ int .Values.gateway.maxHeadBytes }}" }
- { name: SIDEKEY_GATEWAY_HEALTH_PORT, value: {{ int .Values.gateway.healthPort | quote }} }
# Unset or empty, the gateway trusts loopback.
- { name: TRUSTED_CUSTOM_HOSTS, value: {{ join "," (default (list "none.invalid") .Values.gateway.trustedCustomHosts) | quote }} }
{{- with .Values.gateway.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sidekey.gatewayVolumeMounts" -}}
- { name: sidekey-gateway, mountPath: /etc/sidekey-gateway, readOnly: true }
{{- end }}

{{/* Where the gateway is a plain container: it outlives Sidekey. */}}
{{- define "sidekey.gatewayLifecycle" -}}
preStop:
  exec:
    command: [node, /etc/sidekey-gateway/wait-for-sidekey.cjs, {{ int .Values.ports.admin | quote }}]
{{- end }}

{{/* As a native sidecar it starts before Sidekey and is stopped after Sidekey has ended. */}}
{{- define "sidekey.gatewayContainer" -}}
name: gateway
image: {{ include "sidekey.imageName" (list .Values.gateway.image "") | quote }}
imagePullPolicy: {{ .Values.gateway.image.pullPolicy }}
restartPolicy: Always
command: {{ toJson .Values.gateway.command }}
args: {{ toJson (prepend .Values.gateway.args (printf "--port=%d" (int .Values.gateway.port))) }}
env:
  {{- include "sidekey.gatewayEnv" . | nindent 2 }}
ports:
  - { name: gateway-health, containerPort: {{ int .Values.gateway.healthPort }}, protocol: TCP }
startupProbe:
  httpGet: { path: /healthz, port: gateway-health }
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  httpGet: { path: /healthz, port: gateway-health }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
resources:
  {{- toYaml .Values.gateway.resources | nindent 2 }}
securityContext:
  {{- include "sidekey.containerSecurity" . | nindent 2 }}
volumeMounts:
  {{- include "sidekey.gatewayVolumeMounts" . | nindent 2 }}
{{- end }}
