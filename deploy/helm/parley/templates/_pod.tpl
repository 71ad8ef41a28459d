{{/* Environment of one container. Takes root, database, secrets, signsIn, token (key in the Secret), servesAt, env. */}}
{{- define "parley.environment" -}}
{{- $root := .root -}}
{{- $settings := deepCopy $root.Values.settings -}}
{{- if not .signsIn -}}{{- $_ := unset $settings "oidc" -}}{{- end -}}
{{- $pools := dict -}}
{{- range $name, $pool := $root.Values.pools -}}{{- $_ := set $pools $name $pool.settings -}}{{- end -}}
{{- $_ := set $settings "pools" $pools -}}
{{- $pulsar := include "parley.pulsar" $root | fromYaml -}}
{{- $bus := $settings.bus | default dict -}}
{{- $_ := set $settings "bus" (set $bus "pulsar" $pulsar) -}}
{{- range $name, $value := merge $settings .servesAt (dict "data_dir" "/var/lib/parley") }}
- name: PARLEY_{{ $name | upper }}
  value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end }}
{{- range .database }}
- name: {{ eq . "owner" | ternary "PARLEY_POSTGRES__URL" (printf "PARLEY_POSTGRES__ROLE_URLS__%s" (upper .)) }}
  valueFrom: {secretKeyRef: {name: {{ include "parley.secret" $root }}, key: postgres-{{ replace "_" "-" . }}-url}}
{{- end }}
{{- range .secrets }}
- name: {{ eq . "redis-url" | ternary "PARLEY_REDIS__URL" (printf "PARLEY_SECURITY__%s" (. | upper | replace "-" "_")) }}
  valueFrom: {secretKeyRef: {name: {{ include "parley.secret" $root }}, key: {{ . }}}}
{{- end }}
{{- if and $pulsar.url $root.Values.secrets.pulsarToken }}
- name: PARLEY_BUS__PULSAR__TOKEN
  valueFrom: {secretKeyRef: {name: {{ include "parley.secret" $root }}, key: {{ .token }}}}
{{- end }}
- {name: HOME, value: /tmp}
{{- with .env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "parley.image" -}}
{{- $image := .root.Values.image -}}
{{- $tag := $image.tag | default .root.Chart.AppVersion -}}
{{- if .gpus -}}
{{- printf "%s:%s" $image.repository ($image.gpuTag | default (printf "%s-cuda" $tag)) -}}
{{- else if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository $tag -}}
{{- end -}}
{{- end -}}

{{/* What every pod of Parley has. Its user needs no entry in the image. */}}
{{- define "parley.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "parley.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "parley.mounts" -}}
- {name: data, mountPath: /var/lib/parley}
- {name: tmp, mountPath: /tmp}
{{- with concat .root.Values.volumeMounts (.volumeMounts | default list) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "parley.volumes" -}}
- {name: data, emptyDir: {}}
- {name: tmp, emptyDir: {}}
{{- with concat .root.Values.volumes (.volumes | default list) }}
{{ toYaml . }}
{{- end }}
{{- end -}}
