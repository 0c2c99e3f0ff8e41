{{- /* No longer than leaves room for a process' name, and as names of Services have to be. */ -}}
{{- define "kratos-sync.fullname" -}}
{{- $release := .Release.Name -}}
{{- if not (contains "kratos-sync" $release) -}}
{{- $release = printf "%s-kratos-sync" $release -}}
{{- end -}}
{{- $name := .Values.fullnameOverride | default $release | replace "." "-" | trunc 50 | trimSuffix "-" -}}
{{- if not (regexMatch "^[a-z]" $name) -}}
{{- fail (printf "The name of a Service has to begin with a letter, and %s does not: set fullnameOverride." $name) -}}
{{- end -}}
{{ $name }}
{{- end -}}

{{- define "kratos-sync.releaseLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "kratos-sync.labels" -}}
{{ include "kratos-sync.releaseLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "kratos-sync.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The template of a process' pod. Takes root, process, values (those of the process), args, and
      container: ports and probes, which a process that ends by itself does not have. */ -}}
{{- define "kratos-sync.podTemplate" -}}
metadata:
  labels:
    {{- $own := set (fromYaml (include "kratos-sync.labels" .root)) "app.kubernetes.io/component" .process }}
    {{- merge $own .values.podLabels .root.Values.podLabels | toYaml | nindent 4 }}
  {{- with mergeOverwrite (deepCopy .root.Values.podAnnotations) .values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- $spec := fromYaml (include "kratos-sync.podSpec" .) }}
  {{- mergeOverwrite $spec (deepCopy .root.Values.pod) .values.pod | toYaml | nindent 2 }}
{{- end -}}

{{- define "kratos-sync.podSpec" -}}
{{- $secrets := deepCopy .root.Values.secrets -}}
{{- if not (has .process (list "relay" "worker" "console")) -}}
{{- $secrets = omit $secrets "BROKER_URL" -}}
{{- end -}}
{{- /* No process takes a setting twice: its own goes before the one for all, and then a secret before env. */ -}}
{{- $env := deepCopy .root.Values.env -}}
{{- range $setting, $_ := $secrets }}{{ $_ := unset $env $setting }}{{ end -}}
{{- range $setting, $_ := .values.env }}{{ $_ := unset $secrets $setting }}{{ end -}}
{{- $secrets = mergeOverwrite $secrets .values.secrets -}}
{{- $env = mergeOverwrite $env .values.env -}}
{{- range $setting, $_ := .values.secrets }}{{ $_ := unset $env $setting }}{{ end -}}
automountServiceAccountToken: false
# A Service called `metrics` would set METRICS_PORT.
enableServiceLinks: false
# Python as process 1 would reap no forks of a worker.
shareProcessNamespace: true
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "kratos-sync.releaseLabels" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .process }}
containers:
  - name: {{ .process }}
    image: {{ include "kratos-sync.image" .root | quote }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args: {{ toJson .args }}
    env:
      {{- range $setting, $value := $env }}
      - name: {{ $setting }}
        {{- kindIs "string" $value | ternary (dict "value" $value) $value | toYaml | nindent 8 }}
      {{- end }}
      {{- range $setting, $_ := $secrets }}
      - name: {{ $setting }}_FILE
        value: /run/secrets/kratos-sync/{{ lower $setting }}
      {{- end }}
    {{- with .container }}
      - name: METRICS_HOST
        value: {{ $.root.Values.listenOn | quote }}
      - name: METRICS_PORT
        value: "9100"
    {{- toYaml . | nindent 4 }}
    {{- end }}
    resources:
      {{- toYaml .values.resources | nindent 6 }}
    securityContext:
      {{- toYaml .root.Values.securityContext | nindent 6 }}
    volumeMounts:
      - name: tmp
        mountPath: /tmp
      - name: secrets
        mountPath: /run/secrets/kratos-sync
        readOnly: true
      {{- with .values.volumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: tmp
    emptyDir: {medium: Memory, sizeLimit: 64Mi}
  - name: secrets
    projected:
      defaultMode: 0440
      sources:
        {{- range $setting, $secret := $secrets }}
        - secret:
            name: {{ $secret.name | quote }}
            items: [{key: {{ $secret.key | quote }}, path: {{ lower $setting }}}]
        {{- end }}
  {{- with .values.volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* The ports and probes of a process, and the pause before it stops where a Service sends to it.
      Takes http (its own port, if it has one) and readiness (of that port, if it differs). */ -}}
{{- define "kratos-sync.serving" -}}
ports:
  {{- if .http }}
  - name: http
    containerPort: {{ .http }}
  {{- end }}
  - name: metrics
    containerPort: 9100
livenessProbe:
  httpGet: {path: /health/live, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  {{- if .readiness }}
  httpGet: {path: /health/ready, port: http}
  timeoutSeconds: 5
  {{- toYaml .readiness | nindent 2 }}
  {{- else }}
  httpGet: {path: /health/ready, port: metrics}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
  {{- end }}
{{- if .http }}
# Until every node knows that it is gone.
lifecycle:
  preStop:
    sleep: {seconds: 5}
{{- end }}
{{- end -}}
