# The least rights, and the most restricted Pods.
package main

import rego.v1

roles := {"Role", "ClusterRole"}

bindings := {"RoleBinding", "ClusterRoleBinding"}

users := {"image-export-operator-view", "image-export-operator-edit"}

label := sprintf("%s %s", [input.kind, input.metadata.name])

# All that a rule of the operator may name, as [group, resource, verb].
allowed contains [group, resource, verb] if {
	some [group, resource, verbs] in [
		["imageexport.dev", "imageexportjobs", ["get", "list", "watch", "delete"]],
		["imageexport.dev", "imageexportjobs/status", ["update", "patch"]],
		["events.k8s.io", "events", ["create"]],
		["", "secrets", ["get"]],
		["coordination.k8s.io", "leases", ["create", "get", "update"]],
	]
	some verb in verbs
}

# What people may do with the objects.
users_may contains [group, resource, verb] if {
	some [group, resource, verbs] in [
		["imageexport.dev", "imageexportjobs", [
			"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection",
		]],
		["imageexport.dev", "imageexportjobs/status", ["get", "list", "watch"]],
	]
	some verb in verbs
}

granted contains [rule, [group, resource, verb]] if {
	input.kind in roles
	some rule in input.rules
	some group in rule.apiGroups
	some resource in rule.resources
	some verb in rule.verbs
}

deny contains sprintf("%s grants %v", [label, right]) if {
	not input.metadata.name in users
	some [_, right] in granted
	not right in allowed
}

deny contains sprintf("%s grants %v", [label, right]) if {
	input.metadata.name in users
	some [_, right] in granted
	not right in users_may
}

deny contains sprintf("%s grants %v", [label, rule.nonResourceURLs]) if {
	input.kind in roles
	some rule in input.rules
	count(object.get(rule, "nonResourceURLs", [])) > 0
}

deny contains sprintf("%s may %s any Lease", [label, verb]) if {
	some [rule, ["coordination.k8s.io", "leases", verb]] in granted
	verb != "create"
	count(object.get(rule, "resourceNames", [])) == 0
}

deny contains sprintf("%s may write Leases in all namespaces", [label]) if {
	input.kind == "ClusterRole"
	some [_, ["coordination.k8s.io", _, _]] in granted
}

deny contains sprintf("%s binds %s %s", [label, subject.kind, subject.name]) if {
	input.kind in bindings
	some subject in input.subjects
	not subject.kind == "ServiceAccount"
}

deny contains sprintf("%s binds %s of another application", [label, input.roleRef.name]) if {
	input.kind in bindings
	not startswith(input.roleRef.name, "image-export-operator")
}

# Of each kind of workload.
pod := input.spec.template.spec

containers := array.concat(pod.containers, object.get(pod, "initContainers", []))

deny contains sprintf("%s: %s is not restricted", [label, container.name]) if {
	some container in containers
	wanted := {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}
	object.get(container, "securityContext", {}) != wanted
}

deny contains sprintf("%s may run as root", [label]) if {
	not restricted(object.get(pod, "securityContext", {}))
}

restricted(context) if {
	context.runAsNonRoot == true
	context.runAsUser > 10000
	context.runAsGroup > 10000
	context.seccompProfile.type == "RuntimeDefault"
}

deny contains sprintf("%s shares %s of its node", [label, namespace]) if {
	some namespace in ["hostNetwork", "hostPID", "hostIPC"]
	pod[namespace] == true
}

deny contains sprintf("%s mounts a path of its node", [label]) if {
	some volume in pod.volumes
	volume.hostPath
}

deny contains sprintf("%s: every Pod of its name gets a token", [label]) if {
	input.kind == "ServiceAccount"
	not input.automountServiceAccountToken == false
}
