{{/* Values that contradict each other end here, with what to do. */}}

{{- define "sidekey.refuse" -}}
{{- fail (printf "\n\nsidekey: %s\n" .) -}}
{{- end }}

{{- define "sidekey.checks" -}}
{{- $values := .Values -}}
{{- range $key := list "listen" "admin_listen" "webhook_listen" "admin_token_file" "api_key_hash_file" "fingerprint_key_file" "sealing" "tls" -}}
{{-   if and (hasKey $values.config $key) (not (include "sidekey.isOwnSocket" (list $ (index $values.config $key)))) -}}
{{-     include "sidekey.refuse" (printf "config.%s follows from other values (ports, ipv6, webhooks, secrets.*); remove it" $key) -}}
{{-   end -}}
{{- end -}}
{{- range $path := list "upstream.url" "upstream.max_head_bytes" "snapshot.file" "snapshot.control_plane" -}}
{{-   $parts := splitList "." $path -}}
{{-   $section := default dict (index $values.config (first $parts)) -}}
{{-   if and (hasKey $section (last $parts)) (not (include "sidekey.isOwnSocket" (list $ (index $section (last $parts))))) -}}
{{-     include "sidekey.refuse" (printf "config.%s follows from other values (gateway.*, snapshot.*); remove it" $path) -}}
{{-   end -}}
{{- end -}}
{{- if and (eq $values.mode "none") (not $values.controlPlane.enabled) -}}
{{-   include "sidekey.refuse" "mode: none installs nothing without controlPlane.enabled: true" -}}
{{- end -}}
{{- if ne $values.mode "none" -}}{{- include "sidekey.dataPlaneChecks" . -}}{{- end -}}
{{- if $values.controlPlane.enabled -}}{{- include "sidekey.controlPlaneChecks" . -}}{{- end -}}
{{- end }}

{{/* Whether a value names Unix sockets in a pod of another chart: list CONTEXT VALUE. */}}
{{- define "sidekey.isOwnSocket" -}}
{{- $given := index . 1 -}}
{{- if eq (index . 0).Values.mode "sidecar" -}}
{{-   if kindIs "string" $given -}}{{- if hasPrefix "unix:" $given }}true{{ end -}}
{{-   else if kindIs "slice" $given -}}{{- if regexMatch "^(unix:[^,]*,)+$" (printf "%s," (join "," $given)) }}true{{ end -}}
{{-   end -}}
{{- end -}}
{{- end }}

{{- define "sidekey.dataPlaneChecks" -}}
{{- $values := .Values -}}
{{- $secrets := $values.secrets -}}
{{- $authentication := default "none" $values.config.client_auth -}}
{{- if not (or (not (include "sidekey.listensOnTcp" .)) (eq $authentication "api_key") $secrets.clientCa.name $values.config.allow_unauthenticated) -}}
{{-   include "sidekey.refuse" "whoever reaches the Service would use your credentials. Set config.client_auth: api_key with secrets.apiKeyHash, or secrets.tls and secrets.clientCa for client certificates, or config.allow_unauthenticated: true if networkPolicy.clients or a mesh says who may connect" -}}
{{- end -}}
{{- if and (eq $authentication "api_key") (not $secrets.apiKeyHash.name) -}}
{{-   include "sidekey.refuse" "config.client_auth: api_key needs secrets.apiKeyHash.name, the Secret that API keys are hashed under" -}}
{{- end -}}
{{- if and $secrets.clientCa.name (not $secrets.tls.name) -}}
{{-   include "sidekey.refuse" "secrets.clientCa needs secrets.tls beside it: client certificates are shown over TLS" -}}
{{- end -}}
{{- include "sidekey.webhookChecks" . -}}
{{- include "sidekey.limitChecks" . -}}
{{- $source := $values.snapshot.source -}}
{{- if and (eq $source "inline") (not $values.snapshot.inline) -}}
{{-   include "sidekey.refuse" "snapshot.source: inline needs snapshot.inline (--set-file snapshot.inline=snapshot.json)" -}}
{{- end -}}
{{- if and $values.snapshot.inline (ne $source "inline") -}}
{{-   include "sidekey.refuse" "snapshot.inline is given and snapshot.source says something else; set snapshot.source: inline" -}}
{{- end -}}
{{- if and (has $source (list "configMap" "secret")) (not (index $values.snapshot $source).name) -}}
{{-   include "sidekey.refuse" (printf "snapshot.source: %s needs snapshot.%s.name" $source $source) -}}
{{- end -}}
{{- if eq $source "inline" -}}{{- include "sidekey.inlineChecks" . -}}{{- end -}}
{{- if eq $source "controlPlane" -}}
{{-   if not (or $values.controlPlane.enabled $values.snapshot.controlPlane.url) -}}
{{-     include "sidekey.refuse" "snapshot.source: controlPlane needs snapshot.controlPlane.url, or controlPlane.enabled: true" -}}
{{-   end -}}
{{-   if not $values.snapshot.controlPlane.tokenSecret.name -}}
{{-     include "sidekey.refuse" "snapshot.source: controlPlane needs snapshot.controlPlane.tokenSecret.name, whose digest stands in the control plane's data_planes" -}}
{{-   end -}}
{{- end -}}
{{- if and $values.identity.aws.roleArn $values.identity.aws.podIdentity -}}
{{-   include "sidekey.refuse" "identity.aws.roleArn (IRSA) and identity.aws.podIdentity are two ways to one identity; choose one" -}}
{{- end -}}
{{- if ne (empty $values.identity.azure.clientId) (empty $values.identity.azure.tenantId) -}}
{{-   include "sidekey.refuse" "identity.azure.clientId and identity.azure.tenantId belong together" -}}
{{- end -}}
{{- if and $values.identity.gcp.serviceAccount $values.identity.gcp.federation.audience -}}
{{-   include "sidekey.refuse" "identity.gcp.serviceAccount (metadata server) and identity.gcp.federation are two ways to one identity; choose one" -}}
{{- end -}}
{{- range $host := $values.gateway.trustedCustomHosts -}}
{{-   if or (has (lower $host) (list "localhost" "::1" "[::1]" "host.docker.internal" "0.0.0.0")) (hasPrefix "127." $host) (hasSuffix ".localhost" (lower $host)) (hasPrefix "169.254." $host) -}}
{{-     include "sidekey.refuse" (printf "gateway.trustedCustomHosts names %s: a client could reach what listens inside the pod; remove it" $host) -}}
{{-   end -}}
{{- end -}}
{{- include "sidekey.clearSecrets" (list "extraEnv" $values.extraEnv) -}}
{{- include "sidekey.clearSecrets" (list "gateway.extraEnv" $values.gateway.extraEnv) -}}
{{- range $values.gateway.extraEnv -}}
{{-   if regexMatch "^(AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|ROLE_ARN|WEB_IDENTITY_TOKEN_FILE|CONTAINER_.*|PROFILE)|AZURE_(CLIENT|TENANT|FEDERATED|AUTHORITY)_.*|GOOGLE_APPLICATION_CREDENTIALS)$" .name -}}
{{-     include "sidekey.refuse" (printf "gateway.extraEnv sets %s: the gateway gets no identity, Sidekey puts credentials on each request; remove it, or set it in extraEnv" .name) -}}
{{-   end -}}
{{-   if has .name (list "NODE_OPTIONS" "NODE_ENV" "TRUSTED_CUSTOM_HOSTS" "SIDEKEY_GATEWAY_HEALTH_PORT") -}}
{{-     include "sidekey.refuse" (printf "gateway.extraEnv sets %s, which keeps the gateway on loopback; remove it" .name) -}}
{{-   end -}}
{{- end -}}
{{- $ports := list (int $values.ports.client) (int $values.ports.admin) (int $values.webhooks.port) (int $values.gateway.port) (int $values.gateway.healthPort) -}}
{{- if ne (len $ports) (len (uniq $ports)) -}}
{{-   include "sidekey.refuse" "ports.client, ports.admin, webhooks.port, gateway.port and gateway.healthPort are in one pod; give each its own number" -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (gt (int $values.autoscaling.minReplicas) (int $values.autoscaling.maxReplicas)) -}}
{{-   include "sidekey.refuse" "autoscaling.minReplicas is above autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and $values.podDisruptionBudget.enabled (not $values.autoscaling.enabled) (lt (int $values.replicas) 2) -}}
{{-   include "sidekey.refuse" "podDisruptionBudget.enabled with one pod either blocks drains or protects nothing; set replicas to 2 or more" -}}
{{- end -}}
{{- end }}

{{/* An environment in clear stands in the Deployment: list VALUE ENVIRONMENT. */}}
{{- define "sidekey.clearSecrets" -}}
{{- $value := index . 0 -}}
{{- range index . 1 -}}
{{-   if and .value (regexMatch "(?i)(secret|password|passwd|credential|token|(api|access|private)_?key)$" .name) -}}
{{-     include "sidekey.refuse" (printf "%s holds %s in clear, and would stand in the Deployment; use valueFrom.secretKeyRef" $value .name) -}}
{{-   end -}}
{{- end -}}
{{- end }}

{{- define "sidekey.webhookChecks" -}}
{{- $webhooks := .Values.webhooks -}}
{{- $sources := default dict .Values.config.webhooks -}}
{{- $named := list -}}
{{- range $name := list "eventbridgeSecret" "dopplerSecret" "infisicalSecret" "hmacSecret" -}}
{{-   if (index $webhooks $name).name -}}{{- $named = append $named $name -}}{{- end -}}
{{- end -}}
{{- if not $webhooks.enabled -}}
{{-   if or $named $sources $webhooks.tlsSecret.name -}}
{{-     include "sidekey.refuse" "config.webhooks and webhooks.*Secret have no effect without webhooks.enabled: true; set that, or remove them" -}}
{{-   end -}}
{{- else -}}
{{-   if not (or $named (omit $sources "allow_plaintext" "tls")) -}}
{{-     include "sidekey.refuse" "webhooks.enabled needs a source: webhooks.eventbridgeSecret, .dopplerSecret, .infisicalSecret or .hmacSecret, or config.webhooks.event_grid or .pubsub" -}}
{{-   end -}}
{{-   if hasKey $sources "tls" -}}
{{-     include "sidekey.refuse" "config.webhooks.tls follows from webhooks.tlsSecret; remove it" -}}
{{-   end -}}
{{-   if not (or $webhooks.tlsSecret.name $sources.allow_plaintext) -}}
{{-     include "sidekey.refuse" "webhooks.enabled without webhooks.tlsSecret shows keys and tokens of sources to the network; name the Secret, or set config.webhooks.allow_plaintext: true if an ingress in front of it ends TLS" -}}
{{-   end -}}
{{-   if and $webhooks.tlsSecret.name $sources.allow_plaintext -}}
{{-     include "sidekey.refuse" "webhooks.tlsSecret and config.webhooks.allow_plaintext contradict each other; keep one" -}}
{{-   end -}}
{{-   range $source := list "doppler" "infisical" -}}
{{-     if and (index $webhooks (printf "%sSecret" $source)).name (not (index (default dict (index $sources $source)) "references")) -}}
{{-       include "sidekey.refuse" (printf "webhooks.%sSecret needs config.webhooks.%s.references, the references to read again" $source $source) -}}
{{-     end -}}
{{-   end -}}
{{- end -}}
{{- end }}

{{- define "sidekey.limitChecks" -}}
{{- $limits := .Values.limits -}}
{{- $config := default dict .Values.config.limits -}}
{{- $redis := default dict $config.redis -}}
{{- range $row := list
      (list $limits.redisUrlSecret.name $redis "url_file" "limits.redisUrlSecret" "config.limits.redis.url_file")
      (list $limits.redisCaSecret.name $redis "ca_file" "limits.redisCaSecret" "config.limits.redis.ca_file")
      (list $limits.alertSecret.name (default dict $config.alerts) "secret_file" "limits.alertSecret" "config.limits.alerts.secret_file")
      (list $limits.priceConfigMap.name $config "price_file" "limits.priceConfigMap" "config.limits.price_file") -}}
{{-   if and (index $row 0) (hasKey (index $row 1) (index $row 2)) -}}
{{-     include "sidekey.refuse" (printf "%s and %s are two words for one file; keep one" (index $row 3) (index $row 4)) -}}
{{-   end -}}
{{- end -}}
{{- if and $limits.redisCaSecret.name (not (or $limits.redisUrlSecret.name (hasKey $redis "url_file"))) -}}
{{-   include "sidekey.refuse" "limits.redisCaSecret has no effect without limits.redisUrlSecret" -}}
{{- end -}}
{{- if and $limits.alertSecret.name (not (default dict $config.alerts).webhook_url) -}}
{{-   include "sidekey.refuse" "limits.alertSecret needs config.limits.alerts.webhook_url beside it" -}}
{{- end -}}
{{- end }}

{{/* A ConfigMap is no place for a credential. */}}
{{- define "sidekey.inlineChecks" -}}
{{- $snapshot := fromJson .Values.snapshot.inline -}}
{{- if hasKey $snapshot "Error" -}}
{{-   include "sidekey.refuse" "snapshot.inline is not JSON" -}}
{{- end -}}
{{- range $reference := $snapshot.secret_references -}}
{{-   range $field := list "vault_token" "vault_secret_id" "aws_secret_access_key" "azure_entra_client_secret" "gcp_service_account_json" "gcp_service_account_key" "service_account_json" -}}
{{-     if kindIs "string" (index (default dict $reference.auth_config) $field) -}}
{{-       include "sidekey.refuse" (printf "snapshot.inline holds %s of secret reference %s in clear, and would stand in a ConfigMap; use a Secret (snapshot.source: secret), seal it, or log in by an identity" $field $reference.slug) -}}
{{-     end -}}
{{-   end -}}
{{- end -}}
{{- range $config := $snapshot.configs -}}
{{-   if regexMatch "(?i)\"(api_?key|authorization|[a-z_]*(secret|password|private_?key|access_?key|session_?token|ad_?token)[a-z_]*)\":\"[^\"]" (toJson $config.config) -}}
{{-     include "sidekey.refuse" (printf "snapshot.inline holds a credential of config %s in clear, and would stand in a ConfigMap; use a Secret (snapshot.source: secret), or name a virtual key in it" $config.slug) -}}
{{-   end -}}
{{- end -}}
{{- range $list := list "integrations" "virtual_keys" -}}
{{-   range $entity := index $snapshot $list -}}
{{-     if and (kindIs "string" $entity.key) $entity.key -}}
{{-       include "sidekey.refuse" (printf "snapshot.inline holds the key of %s in clear, and would stand in a ConfigMap; use a Secret (snapshot.source: secret), seal it, or map a secret reference" $entity.slug) -}}
{{-     end -}}
{{-     range $field, $value := merge dict (default dict $entity.configurations) (default dict $entity.model_config) -}}
{{-       if and (kindIs "string" $value) (regexMatch "(?i)(secret|password|private_?key|api_?key|session_?token|service_?account_?json|ad_?token)" $field) -}}
{{-         include "sidekey.refuse" (printf "snapshot.inline holds %s of %s in clear, and would stand in a ConfigMap; use a Secret (snapshot.source: secret), seal it, or map a secret reference" $field $entity.slug) -}}
{{-       end -}}
{{-     end -}}
{{-   end -}}
{{- end -}}
{{- end }}

{{- define "sidekey.controlPlaneChecks" -}}
{{- $own := .Values.controlPlane -}}
{{- range $key := list "listen" "tls" "database_file" "database_url_file" "bootstrap_key_file" "api_key_hash_file" "signing_key_file" -}}
{{-   if hasKey $own.config $key -}}
{{-     include "sidekey.refuse" (printf "controlPlane.config.%s follows from other values of controlPlane; remove it" $key) -}}
{{-   end -}}
{{- end -}}
{{- if and $own.podDisruptionBudget.enabled (lt (int $own.replicas) 2) -}}
{{-   include "sidekey.refuse" "controlPlane.podDisruptionBudget.enabled with one pod blocks drains; use controlPlane.replicas: 2 on PostgreSQL" -}}
{{- end -}}
{{- if $own.databaseUrlSecret.name -}}
{{-   if $own.persistence.existingClaim -}}
{{-     include "sidekey.refuse" "controlPlane.persistence.existingClaim holds a SQLite file, and controlPlane.databaseUrlSecret says PostgreSQL; keep one" -}}
{{-   end -}}
{{-   range $name := list "bootstrapKeySecret" "apiKeyHashSecret" "signingKeySecret" -}}
{{-     if not (index $own $name).name -}}
{{-       include "sidekey.refuse" (printf "controlPlane.databaseUrlSecret (PostgreSQL) needs controlPlane.%s.name: every pod has to have the same key" $name) -}}
{{-     end -}}
{{-   end -}}
{{- else -}}
{{-   if gt (int $own.replicas) 1 -}}
{{-     include "sidekey.refuse" "controlPlane.replicas above 1 with SQLite: a file has one writer. Use controlPlane.databaseUrlSecret (PostgreSQL), or one replica" -}}
{{-   end -}}
{{-   if not $own.persistence.enabled -}}
{{-     include "sidekey.refuse" "controlPlane.persistence.enabled: false would lose every entity and key with the pod. Keep the claim, or use controlPlane.databaseUrlSecret (PostgreSQL)" -}}
{{-   end -}}
{{- end -}}
{{- end }}
