// How scripts run, and that the tests beside them find a wrong one.

package argo

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const shipped = "../../../deploy/gitops/argocd/resource_customizations/imageexport.dev/ImageExportJob"

func object() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": "x", "generation": int64(3), "labels": map[string]any{}},
		"list":     []any{},
	}}
}

func TestHealthIsReadAsArgoCDReadsIt(t *testing.T) {
	invalid := Health{"Unknown", "Lua returned an invalid health status"}
	for script, expected := range map[string]Health{
		`return {status="Healthy", message=obj.metadata.name}`:           {"Healthy", "x"},
		`return {status=obj.metadata.generation + 1 == 4 and "Missing"}`: {"Missing", ""},
		`return {status="Fine"}`:                                         invalid,
		`return {message="no status"}`:                                   invalid,
		`return {}`:                                                      {},
		`return nil`:                                                     {},
		`local missing`:                                                  {},
	} {
		found, err := (&Scripts{health: script}).Health(object())
		if err != nil || *found != expected {
			t.Errorf("%s: %v, %v", script, found, err)
		}
	}
}

func TestScriptsHaveNoStringLibraryNoMathLibraryAndATimeLimit(t *testing.T) {
	for script, message := range map[string]string{
		`return {status=string.upper("x")}`: "nil",
		`return {status=math.floor(1)}`:     "nil",
		`return {status=("x"):upper()}`:     "attempt to index",
		`return {status=io.read()}`:         "nil",
		`while true do end`:                 "deadline",
		`return "Healthy"`:                  "expect table output from Lua script, not string",
		`return {`:                          "syntax error",
	} {
		found, err := (&Scripts{health: script}).Health(object())
		if err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%s: %v, %v", script, found, err)
		}
	}
}

func TestDisabledActionsAreDiscoveredAndNotEnabled(t *testing.T) {
	scripts := &Scripts{discovery: `return {b={}, a={disabled=true}, c={disabled=false, iconClass="i"}}`}
	found, err := scripts.Discover(object())
	expected := []Action{{Name: "a", Disabled: true}, {Name: "b"}, {Name: "c", IconClass: "i"}}
	if err != nil || !reflect.DeepEqual(found, expected) {
		t.Errorf("%v, %v", found, err)
	}
	if names := Enabled(found); !reflect.DeepEqual(names, []string{"b", "c"}) {
		t.Error(names)
	}
}

func TestAnActionLeavesEmptyObjectsAndListsWhatTheyAre(t *testing.T) {
	folder := t.TempDir()
	write(t, folder, "actions/touch/action.lua", `obj.metadata.name = "y" return obj`)
	found, err := (&Scripts{folder: folder}).Act("touch", object())
	expected := object()
	expected.SetName("y")
	if err != nil || !reflect.DeepEqual(found, expected) {
		t.Errorf("%v, %v", found, err)
	}
}

func TestTheShippedScriptsPassTheirTests(t *testing.T) {
	report, err := Test(shipped)
	if err != nil || len(report.Deviations) > 0 || report.Tests < 20 {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestEachWrongScriptIsFound(t *testing.T) {
	for _, wrong := range []struct{ file, from, to, found string }{
		{"health.lua", "Degraded", "Healthy", "testdata/job-failed.yaml"},
		{"health.lua", "observed < (obj", "observed > (obj", "testdata/finished-then-changed.yaml"},
		{"health.lua", "return { status = \"Suspended\"", "return { status = \"Paused\"", "testdata/suspended.yaml"},
		{"actions/discovery.lua", "elseif not finished", "elseif true", "testdata/succeeded.yaml"},
		{"actions/resume/action.lua", "false", "true", "resume of testdata/running-suspended.yaml"},
	} {
		folder := t.TempDir()
		if err := os.CopyFS(folder, os.DirFS(shipped)); err != nil {
			t.Fatal(err)
		}
		script, err := os.ReadFile(filepath.Join(folder, wrong.file))
		if err != nil || !strings.Contains(string(script), wrong.from) {
			t.Fatalf("%s has no %q, %v", wrong.file, wrong.from, err)
		}
		write(t, folder, wrong.file, strings.ReplaceAll(string(script), wrong.from, wrong.to))
		report, err := Test(folder)
		if err != nil || !strings.Contains(strings.Join(report.Deviations, "\n"), wrong.found) {
			t.Errorf("%s, %s: %+v, %v", wrong.file, wrong.to, report, err)
		}
	}
}

func TestAnObjectWithoutATestIsAnError(t *testing.T) {
	folder := t.TempDir()
	if err := os.CopyFS(folder, os.DirFS(shipped)); err != nil {
		t.Fatal(err)
	}
	write(t, folder, "testdata/new.yaml", "kind: New")
	if _, err := Test(folder); err == nil || !strings.Contains(err.Error(), "new.yaml") {
		t.Error(err)
	}
}

func write(t *testing.T, folder, name, content string) {
	t.Helper()
	file := filepath.Join(folder, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
