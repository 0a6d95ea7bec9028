package main

import rego.v1

operator_role(rules) := {"kind": "ClusterRole", "metadata": {"name": "image-export-operator"}, "rules": rules}

test_the_rights_of_the_operator_pass if {
	count(deny) == 0 with input as operator_role([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}])
}

test_a_wildcard_is_denied if {
	count(deny) == 1 with input as operator_role([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}])
	count(deny) == 1 with input as operator_role([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get"]}])
}

test_a_path_is_denied if {
	count(deny) == 1 with input as operator_role([{"nonResourceURLs": ["*"], "verbs": ["get"]}])
}

test_listing_secrets_is_denied if {
	count(deny) == 1 with input as operator_role([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}])
}

test_any_lease_is_denied if {
	lease := {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "update"]}
	role := {"kind": "Role", "metadata": {"name": "x"}, "rules": [lease]}
	deny == {"Role x may update any Lease"} with input as role
	count(deny) == 2 with input as operator_role([lease])
}

test_users_write_no_status if {
	rule := {"apiGroups": ["imageexport.dev"], "resources": ["imageexportjobs/status"], "verbs": ["patch"]}
	role := {"kind": "ClusterRole", "metadata": {"name": "image-export-operator-edit"}, "rules": [rule]}
	count(deny) == 1 with input as role
}

test_other_subjects_and_roles_are_denied if {
	binding := {
		"kind": "ClusterRoleBinding", "metadata": {"name": "x"}, "roleRef": {"name": "cluster-admin"},
		"subjects": [{"kind": "Group", "name": "system:authenticated"}],
	}
	count(deny) == 2 with input as binding
}

workload(kind, pod) := {"kind": kind, "metadata": {"name": "x"}, "spec": {"template": {"spec": pod}}}

test_pods_that_are_not_restricted_are_denied if {
	pod := {
		"hostNetwork": true, "securityContext": {},
		"containers": [{"name": "c", "securityContext": {"privileged": true}}],
		"volumes": [{"name": "v", "hostPath": {"path": "/"}}],
	}
	count(deny) == 4 with input as workload("Deployment", pod)
}

test_pods_without_a_security_context_are_denied if {
	pod := {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}
	deny == {
		"DaemonSet x may run as root",
		"DaemonSet x: c is not restricted",
		"DaemonSet x: i is not restricted",
	} with input as workload("DaemonSet", pod)
}
