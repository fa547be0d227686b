{{/*
The container of Sidekey and what belongs to it, once, for this chart's pod and for a pod of yours. As a dependency with
`mode: sidecar`, in a chart whose gateway is a plain container:

  spec:
    automountServiceAccountToken: false
    enableServiceLinks: false
    serviceAccountName: {{ include "sidekey.serviceAccountName" .Subcharts.sidekey }}
    terminationGracePeriodSeconds: {{ include "sidekey.graceSeconds" .Subcharts.sidekey }}
    securityContext: {{- include "sidekey.podSecurity" .Subcharts.sidekey | nindent 6 }}   # the group that may read Secrets
    containers:
      - name: gateway
        env: {{- include "sidekey.gatewayEnv" .Subcharts.sidekey | nindent 10 }}
        volumeMounts: {{- include "sidekey.gatewayVolumeMounts" .Subcharts.sidekey | nindent 10 }}
        lifecycle: {{- include "sidekey.gatewayLifecycle" .Subcharts.sidekey | nindent 10 }}
        securityContext: {{- include "sidekey.containerSecurity" .Subcharts.sidekey | nindent 10 }}
      - {{- include "sidekey.container" .Subcharts.sidekey | nindent 8 }}
    volumes: {{- include "sidekey.volumes" .Subcharts.sidekey | nindent 6 }}

with the annotations of "sidekey.podAnnotations" on the pod.
*/}}

{{- define "sidekey.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: { drop: [ALL] }
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- if not .Values.openshift }}
runAsUser: {{ int .Values.runAs.user }}
runAsGroup: {{ int .Values.runAs.group }}
{{- end }}
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "sidekey.container" -}}
name: sidekey
image: {{ include "sidekey.imageName" (list .Values.image .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [sidecar, --config, /etc/sidekey/config/sidekey.yaml]
{{- with include "sidekey.env" . | trim }}
env:
  {{- . | nindent 2 }}
{{- end }}
ports:
  {{- if include "sidekey.listensOnTcp" . }}
  - { name: client, containerPort: {{ int .Values.ports.client }}, protocol: TCP }
  {{- end }}
  - { name: admin, containerPort: {{ int .Values.ports.admin }}, protocol: TCP }
  {{- if .Values.webhooks.enabled }}
  - { name: webhooks, containerPort: {{ int .Values.webhooks.port }}, protocol: TCP }
  {{- end }}
startupProbe:
  httpGet: { path: /healthz, port: admin }
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: { path: /healthz, port: admin }
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: admin }
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- include "sidekey.containerSecurity" . | nindent 2 }}
volumeMounts:
  {{- include "sidekey.volumeMounts" . | nindent 2 }}
{{- end }}

{{- define "sidekey.env" -}}
{{- with .Values.identity.aws }}
{{- if .roleArn }}
- { name: AWS_ROLE_ARN, value: {{ .roleArn | quote }} }
- { name: AWS_WEB_IDENTITY_TOKEN_FILE, value: /var/run/secrets/sidekey/aws/token }
- { name: AWS_STS_REGIONAL_ENDPOINTS, value: regional }
{{- end }}
{{- if .podIdentity }}
- { name: AWS_CONTAINER_CREDENTIALS_FULL_URI, value: {{ ternary "http://[fd00:ec2::23]/v1/credentials" "http://169.254.170.23/v1/credentials" $.Values.ipv6 | quote }} }
- { name: AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE, value: /var/run/secrets/sidekey/aws-pod/token }
{{- end }}
{{- if .region }}
- { name: AWS_REGION, value: {{ .region | quote }} }
{{- end }}
{{- end }}
{{- with .Values.identity.azure }}
{{- if .clientId }}
- { name: AZURE_CLIENT_ID, value: {{ .clientId | quote }} }
- { name: AZURE_TENANT_ID, value: {{ .tenantId | quote }} }
- { name: AZURE_FEDERATED_TOKEN_FILE, value: /var/run/secrets/sidekey/azure/token }
{{- end }}
{{- end }}
{{- if .Values.identity.gcp.federation.audience }}
- { name: GOOGLE_APPLICATION_CREDENTIALS, value: /etc/sidekey/config/gcp-federation.json }
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Secrets that become folders below /etc/sidekey: `folder: {name, key}`. */}}
{{- define "sidekey.secretFolders" -}}
{{- $secrets := .Values.secrets -}}
{{- $folders := dict
      "sealing" $secrets.sealingIdentity
      "admin-token" $secrets.adminToken
      "api-key-hash" $secrets.apiKeyHash
      "fingerprint-key" $secrets.fingerprintKey
      "extra-ca" $secrets.extraCa
      "tls" $secrets.tls
      "client-ca" $secrets.clientCa
      "files" $secrets.files
      "redis-url" .Values.limits.redisUrlSecret
      "redis-ca" .Values.limits.redisCaSecret
      "alerts" .Values.limits.alertSecret -}}
{{- if .Values.webhooks.enabled -}}
{{-   range $source := list "tls" "eventbridge" "doppler" "infisical" "hmac" -}}
{{-     $_ := set $folders (printf "webhook-%s" $source) (index $.Values.webhooks (printf "%sSecret" $source)) -}}
{{-   end -}}
{{- end -}}
{{- if eq .Values.snapshot.source "controlPlane" -}}
{{-   $_ := set $folders "control-plane-token" .Values.snapshot.controlPlane.tokenSecret -}}
{{-   $_ := set $folders "control-plane-ca" .Values.snapshot.controlPlane.caSecret -}}
{{- end -}}
{{- if eq .Values.snapshot.source "secret" -}}{{- $_ := set $folders "snapshot" .Values.snapshot.secret -}}{{- end -}}
{{- range $folder, $secret := $folders }}
{{- if not $secret.name }}{{- $_ := unset $folders $folder }}{{- end }}
{{- end }}
{{- toYaml $folders }}
{{- end }}

{{/* A Secret as a volume, with the key that is asked for and no other, as there may be others in it: list FOLDER SECRET. */}}
{{- define "sidekey.secretVolume" -}}
{{- $secret := index . 1 -}}
{{- $keys := list -}}
{{- if $secret.key -}}{{- $keys = list $secret.key -}}
{{- else if hasSuffix "tls" (index . 0) -}}{{- $keys = list "tls.crt" "tls.key" -}}
{{- end -}}
secret:
  secretName: {{ $secret.name }}
  defaultMode: 0440
  {{- with $keys }}
  items:
    {{- range . }}
    - { key: {{ . | quote }}, path: {{ . | quote }} }
    {{- end }}
  {{- end }}
{{- end }}

{{/* Identity tokens: `folder: audience` lines. */}}
{{- define "sidekey.tokens" -}}
{{- $tokens := dict -}}
{{- with .Values.identity -}}
{{- if .vault.enabled -}}{{- $_ := set $tokens "vault" .vault.audience -}}{{- end -}}
{{- if .aws.roleArn -}}{{- $_ := set $tokens "aws" "sts.amazonaws.com" -}}{{- end -}}
{{- if .aws.podIdentity -}}{{- $_ := set $tokens "aws-pod" "pods.eks.amazonaws.com" -}}{{- end -}}
{{- if .azure.clientId -}}{{- $_ := set $tokens "azure" "api://AzureADTokenExchange" -}}{{- end -}}
{{- if .gcp.federation.audience -}}{{- $_ := set $tokens "gcp" (printf "https:%s" .gcp.federation.audience) -}}{{- end -}}
{{- end -}}
{{- toYaml $tokens }}
{{- end }}

{{- define "sidekey.volumeMounts" -}}
- { name: sidekey-config, mountPath: /etc/sidekey/config, readOnly: true }
- { name: sidekey-state, mountPath: /var/lib/sidekey }
{{- if has .Values.snapshot.source (list "inline" "configMap") }}
- { name: sidekey-snapshot, mountPath: /etc/sidekey/snapshot, readOnly: true }
{{- end }}
{{- if .Values.limits.priceConfigMap.name }}
- { name: sidekey-prices, mountPath: /etc/sidekey/prices, readOnly: true }
{{- end }}
{{- range $folder, $secret := include "sidekey.secretFolders" . | fromYaml }}
- { name: sidekey-{{ $folder }}, mountPath: /etc/sidekey/{{ $folder }}, readOnly: true }
{{- end }}
{{- if include "sidekey.tokens" . | fromYaml }}
- { name: sidekey-tokens, mountPath: /var/run/secrets/sidekey, readOnly: true }
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sidekey.volumes" -}}
- name: sidekey-config
  configMap: { name: {{ include "sidekey.fullname" . }} }
- name: sidekey-state
  emptyDir: { medium: Memory, sizeLimit: 64Mi }
{{- if eq .Values.snapshot.source "inline" }}
- name: sidekey-snapshot
  configMap: { name: {{ include "sidekey.fullname" . }}-snapshot }
{{- else if eq .Values.snapshot.source "configMap" }}
- name: sidekey-snapshot
  configMap: { name: {{ .Values.snapshot.configMap.name }} }
{{- end }}
{{- with .Values.limits.priceConfigMap.name }}
- name: sidekey-prices
  configMap: { name: {{ . }} }
{{- end }}
{{- range $folder, $secret := include "sidekey.secretFolders" . | fromYaml }}
- name: sidekey-{{ $folder }}
  {{- include "sidekey.secretVolume" (list $folder $secret) | nindent 2 }}
{{- end }}
{{- with include "sidekey.tokens" . | fromYaml }}
- name: sidekey-tokens
  projected:
    defaultMode: 0440
    sources:
      {{- range $folder, $audience := . }}
      - serviceAccountToken: { path: {{ $folder }}/token, audience: {{ $audience | quote }}, expirationSeconds: {{ int $.Values.identity.tokenSeconds }} }
      {{- end }}
{{- end }}
- name: sidekey-gateway
  configMap: { name: {{ include "sidekey.fullname" . }}-gateway }
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The webhooks of AWS and Azure leave the gateway alone; a changed configuration makes new pods. */}}
{{- define "sidekey.podAnnotations" -}}
eks.amazonaws.com/skip-containers: {{ join "," .Values.gateway.containerNames | quote }}
azure.workload.identity/skip-containers: {{ join ";" .Values.gateway.containerNames | quote }}
checksum/sidekey-config: {{ include "sidekey.configMapData" . | sha256sum }}
checksum/sidekey-gateway: {{ .Files.Glob "files/*.cjs" | toYaml | sha256sum }}
{{- end }}

{{- define "sidekey.configMapData" -}}
sidekey.yaml: |
  {{- include "sidekey.config" . | nindent 2 }}
{{- with .Values.snapshot.controlPlane.publicKey }}
control-plane.pub: |
  {{- . | trim | nindent 2 }}
{{- end }}
{{- with .Values.identity.gcp.federation }}
{{- if .audience }}
{{- $credentials := dict "type" "external_account" "audience" .audience "subject_token_type" "urn:ietf:params:oauth:token-type:jwt" "token_url" "https://sts.googleapis.com/v1/token" "credential_source" (dict "file" "/var/run/secrets/sidekey/gcp/token") }}
{{- with .impersonate }}
{{- $_ := set $credentials "service_account_impersonation_url" (printf "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/%s:generateAccessToken" .) }}
{{- end }}
gcp-federation.json: {{ toJson $credentials | quote }}
{{- end }}
{{- end }}
{{- end }}
