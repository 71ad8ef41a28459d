{{/*
Every service: what it runs, and all that it gets and reaches. `database`: the roles it logs in to Postgres as.
`secrets`: what it has of the Secret besides. `drain`: seconds from SIGTERM to SIGKILL.
*/}}
{{- define "parley.components" -}}
{{- $asked := 10 -}}
{{- $public := list "postgres" "redis" "pulsar" "public" -}}
{{- $private := list "postgres" "redis" "pulsar" -}}
{{- $keys := list "key-pepper" "master-key" -}}
{{- $all := dict
  "command-api" (dict "args" (list "command-api") "database" (list "command_api" "relay") "secrets" $keys
    "serves" true "signsIn" true "reaches" $public "drain" $asked "values" .Values.commandApi)
  "query-api" (dict "args" (list "query-api") "database" (list "query_api") "secrets" $keys
    "serves" true "reaches" $private "drain" $asked "values" .Values.queryApi)
  "gateway" (dict "args" (list "gateway") "database" (list "command_api" "query_api" "relay") "secrets" $keys
    "serves" true "signsIn" true "reaches" $public "drain" $asked "values" .Values.gateway)
  "projections" (dict "args" (list "projections") "database" (list "projections") "secrets" (list "signing-key")
    "reaches" $private "drain" $asked "scaling" .Values.projections.scaling "values" .Values.projections)
  "ingest" (dict "args" (list "ingest") "database" (list "worker") "secrets" (list "master-key")
    "reaches" $private "drain" $asked "values" .Values.ingest)
-}}
{{- $grace := (.Values.settings.worker).grace_s | default 30 | ceil | int -}}
{{- range $name, $pool := .Values.pools -}}
{{- $defaults := dict "replicas" $pool.scaling.min -}}
{{- $_ := set $all (printf "worker-%s" $name) (dict "args" (list "worker" "--pool" $name) "database" (list "worker")
    "secrets" (list "master-key") "reaches" $public "drain" (add $grace $asked) "scaling" $pool.scaling
    "pool" $name "gpus" ($pool.gpus | default 0) "values" (merge (dict) $pool $defaults)) -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{/* Prompts that one worker of a pool runs at a time, as backplane/settings/pools.py has it. */}}
{{- define "parley.slots" -}}
{{- $usual := 8 -}}
{{- if has .backend (list "openai" "azure" "anthropic" "bedrock" "vertex" "triton") -}}{{- $usual = 64 -}}{{- end -}}
{{- if has .backend (list "llama-cpp-python" "transformers") -}}{{- $usual = 1 -}}{{- end -}}
{{- .slots | default $usual | int -}}
{{- end -}}

{{- define "parley.labels" -}}
app.kubernetes.io/name: parley
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "parley.metadata" -}}
{{- include "parley.labels" . }}
app.kubernetes.io/part-of: parley
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "parley.secret" -}}
{{- if .Values.secrets.existing -}}
{{- .Values.secrets.existing -}}
{{- else if .Values.local.enabled -}}
{{- printf "%s-secrets" .Release.Name -}}
{{- else -}}
{{- fail "secrets.existing is not set: make a Secret as docs/how-to/kubernetes.md says, and name it (or set local.enabled in a test cluster)" -}}
{{- end -}}
{{- end -}}

{{/* Pulsar's settings: the operator's, or our own broker's. An empty url: the bus is in Postgres. */}}
{{- define "parley.pulsar" -}}
{{- $given := (.Values.settings.bus).pulsar | default dict -}}
{{- $local := dict -}}
{{- if .Values.local.enabled -}}
{{- $host := printf "%s-pulsar" .Release.Name -}}
{{- $local = dict "url" (printf "pulsar://%s:6650" $host) "admin_url" (printf "http://%s:8080" $host) -}}
{{- end -}}
{{- $pulsar := merge (dict) $given $local (dict "tenant" "parley" "namespace" "main") -}}
{{- if and $pulsar.url (not $pulsar.admin_url) -}}
{{- fail "settings.bus.pulsar.url is set, and admin_url is not: name the broker's admin REST API" -}}
{{- end -}}
{{- toYaml $pulsar -}}
{{- end -}}
