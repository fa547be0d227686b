{{/* Configuration files: what follows from values, under what `config` says. */}}

{{- define "sidekey.anyAddress" -}}
{{ if .Values.ipv6 }}[::]{{ else }}0.0.0.0{{ end }}
{{- end }}

{{- define "sidekey.controlPlaneUrl" -}}
{{- $values := .Values -}}
{{- with $values.snapshot.controlPlane.url }}{{ . }}{{ else -}}
{{ ternary "https" "http" (ne $values.controlPlane.tlsSecret.name "") }}://{{ include "sidekey.controlPlaneName" $ }}.{{ $.Release.Namespace }}.svc:{{ $values.controlPlane.port }}
{{- end -}}
{{- end }}

{{/* Takes out what is null, which is unset, and must not stand above what the chart writes. In place: numbers would not survive YAML. */}}
{{- define "sidekey.dropUnset" -}}
{{- $map := . -}}
{{- range $key, $value := $map -}}
{{-   if kindIs "invalid" $value -}}{{- $_ := unset $map $key -}}
{{-   else if kindIs "map" $value -}}{{- include "sidekey.dropUnset" $value -}}
{{-   end -}}
{{- end -}}
{{- end }}

{{- define "sidekey.config" -}}
{{- $values := .Values -}}
{{- $secrets := $values.secrets -}}
{{- $any := include "sidekey.anyAddress" . -}}
{{- $snapshot := dict "last_good_file" "/var/lib/sidekey/last-good.json" -}}
{{- if has $values.snapshot.source (list "inline" "configMap" "secret") -}}
{{-   $key := "snapshot.json" -}}
{{-   if ne $values.snapshot.source "inline" -}}{{- $key = (index $values.snapshot $values.snapshot.source).key -}}{{- end -}}
{{-   $_ := set $snapshot "file" (printf "/etc/sidekey/snapshot/%s" $key) -}}
{{- else if eq $values.snapshot.source "controlPlane" -}}
{{-   $feed := dict "url" (include "sidekey.controlPlaneUrl" .) "token_file" (printf "/etc/sidekey/control-plane-token/%s" $values.snapshot.controlPlane.tokenSecret.key) -}}
{{-   with $values.snapshot.controlPlane.caSecret -}}
{{-     if .name -}}{{- $_ := set $feed "ca_file" (printf "/etc/sidekey/control-plane-ca/%s" .key) -}}{{- end -}}
{{-   end -}}
{{-   if $values.snapshot.controlPlane.publicKey -}}{{- $_ := set $feed "public_key_file" "/etc/sidekey/config/control-plane.pub" -}}{{- end -}}
{{-   $_ := set $snapshot "control_plane" $feed -}}
{{- end -}}
{{- $config := dict
      "listen" (printf "%s:%d" $any (int $values.ports.client))
      "admin_listen" (printf "%s:%d" $any (int $values.ports.admin))
      "upstream" (dict "url" (printf "http://127.0.0.1:%d" (int $values.gateway.port)) "max_head_bytes" (int $values.gateway.maxHeadBytes))
      "snapshot" $snapshot
      "prewarm" "all"
      "prewarm_max_secs" 120 -}}
{{- if $secrets.sealingIdentity.name -}}{{- $_ := set $config "sealing" (dict "identity_file" (printf "/etc/sidekey/sealing/%s" $secrets.sealingIdentity.key)) -}}{{- end -}}
{{- if $secrets.adminToken.name -}}{{- $_ := set $config "admin_token_file" (printf "/etc/sidekey/admin-token/%s" $secrets.adminToken.key) -}}{{- end -}}
{{- if $secrets.apiKeyHash.name -}}{{- $_ := set $config "api_key_hash_file" (printf "/etc/sidekey/api-key-hash/%s" $secrets.apiKeyHash.key) -}}{{- end -}}
{{- if $secrets.fingerprintKey.name -}}{{- $_ := set $config "fingerprint_key_file" (printf "/etc/sidekey/fingerprint-key/%s" $secrets.fingerprintKey.key) -}}{{- end -}}
{{- include "sidekey.webhookConfig" (list . $config) -}}
{{- include "sidekey.limitConfig" (list . $config) -}}
{{- if $secrets.extraCa.name -}}{{- $_ := set $config "egress" (dict "extra_ca_files" (list (printf "/etc/sidekey/extra-ca/%s" $secrets.extraCa.key))) -}}{{- end -}}
{{- if $secrets.tls.name -}}
{{-   $tls := dict "cert_file" "/etc/sidekey/tls/tls.crt" "key_file" "/etc/sidekey/tls/tls.key" -}}
{{-   if $secrets.clientCa.name -}}{{- $_ := set $tls "client_ca_file" (printf "/etc/sidekey/client-ca/%s" $secrets.clientCa.key) -}}{{- end -}}
{{-   $_ := set $config "tls" $tls -}}
{{- end -}}
{{- $managers := dict -}}
{{- if $values.identity.vault.enabled -}}{{- $_ := set $managers "vault" (dict "kubernetes_jwt_file" "/var/run/secrets/sidekey/vault/token") -}}{{- end -}}
{{- if $values.identity.aws.region -}}{{- $_ := set $managers "aws" (dict "region" $values.identity.aws.region) -}}{{- end -}}
{{- if $secrets.files.name -}}{{- $_ := set $managers "file" (dict "root" "/etc/sidekey/files") -}}{{- end -}}
{{- if $managers -}}{{- $_ := set $config "managers" $managers -}}{{- end -}}
{{- $own := deepCopy $values.config -}}
{{- include "sidekey.dropUnset" $own -}}
{{- mergeOverwrite $config $own | toYaml -}}
{{- end }}

{{/* Adds to a configuration: list CONTEXT CONFIG. */}}
{{- define "sidekey.webhookConfig" -}}
{{- $webhooks := (index . 0).Values.webhooks -}}
{{- if $webhooks.enabled -}}
{{-   $_ := set (index . 1) "webhook_listen" (printf "%s:%d" (include "sidekey.anyAddress" (index . 0)) (int $webhooks.port)) -}}
{{-   $sources := dict -}}
{{-   range $source, $field := dict "eventbridge" "api_key_file" "doppler" "secret_file" "infisical" "secret_file" "hmac" "secret_file" -}}
{{-     with index $webhooks (printf "%sSecret" $source) -}}
{{-       if .name -}}{{- $_ := set $sources $source (dict $field (printf "/etc/sidekey/webhook-%s/%s" $source .key)) -}}{{- end -}}
{{-     end -}}
{{-   end -}}
{{-   if $webhooks.tlsSecret.name -}}{{- $_ := set $sources "tls" (dict "cert_file" "/etc/sidekey/webhook-tls/tls.crt" "key_file" "/etc/sidekey/webhook-tls/tls.key") -}}{{- end -}}
{{-   if $sources -}}{{- $_ := set (index . 1) "webhooks" $sources -}}{{- end -}}
{{- end -}}
{{- end }}

{{- define "sidekey.limitConfig" -}}
{{- $limits := (index . 0).Values.limits -}}
{{- $keys := dict -}}
{{- $redis := dict -}}
{{- if $limits.redisUrlSecret.name -}}{{- $_ := set $redis "url_file" (printf "/etc/sidekey/redis-url/%s" $limits.redisUrlSecret.key) -}}{{- end -}}
{{- if $limits.redisCaSecret.name -}}{{- $_ := set $redis "ca_file" (printf "/etc/sidekey/redis-ca/%s" $limits.redisCaSecret.key) -}}{{- end -}}
{{- if $redis -}}{{- $_ := set $keys "redis" $redis -}}{{- end -}}
{{- if $limits.alertSecret.name -}}{{- $_ := set $keys "alerts" (dict "secret_file" (printf "/etc/sidekey/alerts/%s" $limits.alertSecret.key)) -}}{{- end -}}
{{- if $limits.priceConfigMap.name -}}{{- $_ := set $keys "price_file" (printf "/etc/sidekey/prices/%s" $limits.priceConfigMap.key) -}}{{- end -}}
{{- if $keys -}}{{- $_ := set (index . 1) "limits" $keys -}}{{- end -}}
{{- end }}

{{- define "sidekey.controlPlaneConfig" -}}
{{- $own := .Values.controlPlane -}}
{{- $config := dict "listen" (printf "%s:%d" (include "sidekey.anyAddress" .) (int $own.port)) -}}
{{- if $own.databaseUrlSecret.name -}}
{{-   $_ := set $config "limits" (dict "drain_delay_secs" 5) -}}
{{-   $_ := set $config "database_url_file" (printf "/etc/sidekey/database-url/%s" $own.databaseUrlSecret.key) -}}
{{- else -}}
{{-   $_ := set $config "database_file" "/var/lib/sidekey/control.db" -}}
{{- end -}}
{{- if $own.bootstrapKeySecret.name -}}{{- $_ := set $config "bootstrap_key_file" (printf "/etc/sidekey/bootstrap-key/%s" $own.bootstrapKeySecret.key) -}}{{- end -}}
{{- if $own.apiKeyHashSecret.name -}}{{- $_ := set $config "api_key_hash_file" (printf "/etc/sidekey/api-key-hash/%s" $own.apiKeyHashSecret.key) -}}{{- end -}}
{{- if $own.signingKeySecret.name -}}{{- $_ := set $config "signing_key_file" (printf "/etc/sidekey/signing-key/%s" $own.signingKeySecret.key) -}}{{- end -}}
{{- if $own.tlsSecret.name -}}{{- $_ := set $config "tls" (dict "cert_file" "/etc/sidekey/tls/tls.crt" "key_file" "/etc/sidekey/tls/tls.key") -}}{{- end -}}
{{- $given := deepCopy $own.config -}}
{{- include "sidekey.dropUnset" $given -}}
{{- mergeOverwrite $config $given | toYaml -}}
{{- end }}

{{/* Seconds until a roll counts as stuck: Kubernetes' own, and what a pod may wait for its secrets. */}}
{{- define "sidekey.progressSeconds" -}}
{{- $config := include "sidekey.config" . | fromYaml -}}
{{- add 600 $config.prewarm_max_secs -}}
{{- end }}

{{/* Seconds from SIGTERM to SIGKILL: both stages of the drain, and a margin for the gateway after it. */}}
{{- define "sidekey.graceSeconds" -}}
{{- $limits := default dict .Values.config.limits -}}
{{- add (ternary 5 $limits.drain_delay_secs (kindIs "invalid" $limits.drain_delay_secs)) (ternary 25 $limits.drain_secs (kindIs "invalid" $limits.drain_secs)) .Values.terminationMarginSecs -}}
{{- end }}

{{- define "sidekey.controlPlaneGraceSeconds" -}}
{{- $limits := (include "sidekey.controlPlaneConfig" . | fromYaml).limits | default dict -}}
{{- add ($limits.drain_delay_secs | default 0) (ternary 25 $limits.drain_secs (kindIs "invalid" $limits.drain_secs)) .Values.terminationMarginSecs -}}
{{- end }}
