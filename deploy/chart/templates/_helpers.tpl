{{- define "image-export-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 54 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of all objects. The longest suffix of one whose name is a DNS label is `-metrics`. */}}
{{- define "image-export-operator.fullname" -}}
{{- $name := include "image-export-operator.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 54 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 54 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "image-export-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "image-export-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* Labels of an object: those of the values never replace the chart's. */}}
{{- define "image-export-operator.commonLabels" -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/name" (include "image-export-operator.name" .)
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service
-}}
{{- mergeOverwrite (deepCopy .Values.commonLabels) $own | toYaml -}}
{{- end -}}

{{/* Labels of the parts that run, or that select the Pods. */}}
{{- define "image-export-operator.operatorLabels" -}}
{{- $own := dict "app.kubernetes.io/component" "operator" -}}
{{- mergeOverwrite (include "image-export-operator.commonLabels" . | fromYaml) $own | toYaml -}}
{{- end -}}

{{/* The same with those of one object's values: a list of the root and of these. */}}
{{- define "image-export-operator.labelsWith" -}}
{{- $own := include "image-export-operator.operatorLabels" (index . 0) | fromYaml -}}
{{- mergeOverwrite (deepCopy (index . 1)) $own | toYaml -}}
{{- end -}}

{{- define "image-export-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "image-export-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "image-export-operator.subjects" -}}
- kind: ServiceAccount
  name: {{ include "image-export-operator.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{- define "image-export-operator.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default (printf "v%s" .Chart.AppVersion) .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Of the release's own: releases in one namespace, or with their Leases in one, serve different objects. */}}
{{- define "image-export-operator.leaseName" -}}
{{- if eq (include "image-export-operator.leaseNamespace" .) .Release.Namespace -}}
{{- include "image-export-operator.fullname" . -}}
{{- else -}}
{{- printf "%s.%s" .Release.Namespace (include "image-export-operator.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "image-export-operator.leaseNamespace" -}}
{{- default .Release.Namespace .Values.leaderElection.namespace -}}
{{- end -}}

{{/* All rights of the operator but those on its Lease. */}}
{{- define "image-export-operator.rules" -}}
# Watch the objects, and delete one whose ttlSecondsAfterFinished is over.
- apiGroups: [imageexport.dev]
  resources: [imageexportjobs]
  verbs: [get, list, watch, delete]
# Write what the cloud reports about the job.
- apiGroups: [imageexport.dev]
  resources: [imageexportjobs/status]
  verbs: [update, patch]
# Announce transitions, in the namespace of the object.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
# Read the Secret that an object names, in the object's own namespace. The names are the users' choice.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
{{- end -}}

{{/* Values that exclude each other. Those that are wrong by themselves fail the schema. */}}
{{- define "image-export-operator.validate" -}}
{{- if and (not .Values.leaderElection.enabled) (gt (int .Values.replicas) 1) -}}
{{- fail "replicas: more than one needs leaderElection.enabled, or each would poll every job" -}}
{{- end -}}
{{- if and .Values.extraCA.configMap .Values.extraCA.secret -}}
{{- fail "extraCA: set configMap or secret, not both" -}}
{{- end -}}
{{- range .Values.networkPolicy.apiServer.ports -}}
{{- if and (eq (int .) 443) (not $.Values.networkPolicy.apiServer.addresses) -}}
{{- fail "networkPolicy.apiServer: port 443 needs addresses, or clouds.except has no effect" -}}
{{- end -}}
{{- end -}}
{{- with .Values.monitoring -}}
{{- if and .podMonitor.enabled .serviceMonitor.enabled -}}
{{- fail "monitoring: enable podMonitor or serviceMonitor, or Prometheus scrapes each replica twice" -}}
{{- end -}}
{{- if and .serviceMonitor.enabled (not $.Values.metricsService.enabled) -}}
{{- fail "monitoring.serviceMonitor needs metricsService.enabled" -}}
{{- end -}}
{{- end -}}
{{- end -}}
