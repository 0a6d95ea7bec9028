// Tool verdicts on valid and invalid statuses that the shipped testdata do not have.

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

const scripts = "../../deploy/gitops/argocd/resource_customizations/imageexport.dev/ImageExportJob"

// job is an object of generation 2 whose conditions are given as "Type=Status".
func job(observed string, conditions ...string) string {
	var list []string
	for _, condition := range conditions {
		kind, status, _ := strings.Cut(condition, "=")
		list = append(list, `{"type":"`+kind+`","status":"`+status+`","observedGeneration":2,`+
			`"lastTransitionTime":"2024-11-06T06:47:10Z","reason":"R","message":"`+kind+`."}`)
	}
	return `{"apiVersion":"imageexport.dev/v1alpha1","kind":"ImageExportJob",` +
		`"metadata":{"name":"x","namespace":"n","generation":2},"spec":{},` +
		`"status":{` + observed + `"conditions":[` + strings.Join(list, ",") + `]}}`
}

const current = `"observedGeneration":2,`

func verdicts(t *testing.T, input string) []verdict {
	t.Helper()
	var out bytes.Buffer
	if err := run([]string{"--argocd", scripts}, strings.NewReader(input), &out); err != nil {
		t.Fatal(err)
	}
	var found []verdict
	for decoder := json.NewDecoder(&out); decoder.More(); {
		var one verdict
		if err := decoder.Decode(&one); err != nil {
			t.Fatal(err)
		}
		found = append(found, one)
	}
	return found
}

func TestVerdicts(t *testing.T) {
	const both = "Only one of Reconciling condition or Stalled condition must be present at a time"
	for _, test := range []struct {
		name    string
		object  string
		kstatus string
		argo    string
		failure string // one failure of Flux's checker for objects in progress
	}{
		{"a condition Failed alone reads as success", job(current, "Failed=True"), "Current", "Progressing", "Ready condition must always be present"},
		{"Ready=False alone is not a failure", job(current, "Ready=False"), "InProgress", "Progressing", ""},
		{"Stalled is", job(current, "Ready=False", "Stalled=True"), "Failed", "Degraded", ""},
		{"the first of Reconciling and Stalled wins", job(current, "Ready=False", "Reconciling=True", "Stalled=True"), "InProgress", "Degraded", both},
		{"in whatever order", job(current, "Ready=False", "Stalled=True", "Reconciling=True"), "Failed", "Degraded", both},
		{"Stalled beside Ready fails Flux's checker", job(current, "Ready=True", "Stalled=True"), "Failed", "Degraded", "Ready condition must be False when Stalled condition is True"},
		{"Stalled=False is ignored", job(current, "Ready=True", "Stalled=False"), "Current", "Healthy", ""},
		{"an old status is ignored", job(`"observedGeneration":1,`, "Ready=True"), "InProgress", "Progressing", ""},
		{"an unseen object is not finished", job(`"observedGeneration":-1,`), "InProgress", "Progressing", "Ready condition must always be present"},
		{"without observedGeneration kstatus reads the conditions", job("", "Ready=True"), "Current", "Progressing", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			found := verdicts(t, test.object)[0]
			if found.Kstatus.Status != test.kstatus || found.FluxKstatus.Status != test.kstatus {
				t.Errorf("kstatus: expected %s, found %s and %s", test.kstatus, found.Kstatus.Status, found.FluxKstatus.Status)
			}
			if found.Argo.Status != test.argo {
				t.Errorf("Argo CD: expected %s, found %s", test.argo, found.Argo.Status)
			}
			if test.failure == "" && len(found.FluxInProgress) > 0 ||
				test.failure != "" && !slices.Contains(found.FluxInProgress, test.failure) {
				t.Errorf("Flux: expected %q, found %q", test.failure, found.FluxInProgress)
			}
		})
	}
}

func TestArrayAndSingleValuesAreReadAlike(t *testing.T) {
	one, two := job(current, "Ready=True"), job(current, "Ready=False")
	for _, input := range []string{"[" + one + "," + two + "]", one + "\n" + two + "\n"} {
		found := verdicts(t, input)
		if len(found) != 2 || found[0].Argo.Message != "Ready." || found[1].Kstatus.Status != "InProgress" {
			t.Errorf("%s: %+v", input, found)
		}
	}
	if found := verdicts(t, "[]"); len(found) != 0 {
		t.Errorf("%+v", found)
	}
}

func TestYAMLFilesAreReadInTheirOrder(t *testing.T) {
	var out bytes.Buffer
	files := []string{scripts + "/testdata/job-failed.yaml", scripts + "/testdata/job-succeeded.yaml"}
	if err := run(files, strings.NewReader(""), &out); err != nil {
		t.Fatal(err)
	}
	failed, current := strings.Index(out.String(), "Failed"), strings.Index(out.String(), "Current")
	if failed < 0 || failed > current || strings.Contains(out.String(), "argo") {
		t.Error(out.String())
	}
}

func TestAnInvalidObjectOrCommandIsAnError(t *testing.T) {
	for input, message := range map[string]string{
		`{"name":"x"}`: "'Kind' is missing",
		`[1]`:          "object 0",
		`[{"kind":`:    "reading objects",
	} {
		err := run(nil, strings.NewReader(input), &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%s: %v", input, err)
		}
	}
	for _, args := range [][]string{{"wait"}, {"argocd-test"}, {"flux-wait", "x"}, {"--argocd", "missing"}} {
		err := run(args, strings.NewReader(""), &bytes.Buffer{})
		if err == nil || errors.Is(err, errFailed) {
			t.Errorf("%v: %v", args, err)
		}
	}
}
