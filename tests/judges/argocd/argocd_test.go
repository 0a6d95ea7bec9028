// Argo CD's own code reads the shipped argocd-cm.yaml and runs its scripts on the tests beside
// them. The module above runs the same tests in seconds, with a copy of Argo's conventions.
package argocd_test

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/health"
	"github.com/argoproj/argo-cd/v3/common"
	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/argo-cd/v3/util/settings"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"
)

const (
	shipped = "../../../deploy/gitops/argocd"
	folder  = shipped + "/resource_customizations/imageexport.dev/ImageExportJob"
)

// machine is Argo CD's Lua machine, configured from the shipped ConfigMap as a server is.
func machine(t *testing.T) lua.VM {
	t.Helper()
	var config corev1.ConfigMap
	read(t, shipped+"/argocd-cm.yaml", &config)
	labels := map[string]string{"app.kubernetes.io/part-of": "argocd"}
	config.Namespace, config.Labels = "argocd", labels
	secret := corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Name: common.ArgoCDSecretName, Namespace: "argocd", Labels: labels,
	}}
	client := fake.NewClientset(&config, &secret)
	overrides, err := settings.NewSettingsManager(t.Context(), client, "argocd").GetResourceOverrides()
	if err != nil {
		t.Fatal(err)
	}
	return lua.VM{ResourceOverrides: overrides}
}

func TestHealth(t *testing.T) {
	vm := machine(t)
	var suite struct {
		Tests []struct {
			InputPath    string
			HealthStatus health.HealthStatus
		}
	}
	read(t, folder+"/health_test.yaml", &suite)
	if len(suite.Tests) == 0 {
		t.Fatal("no tests")
	}
	for _, test := range suite.Tests {
		t.Run(test.InputPath, func(t *testing.T) {
			object := object(t, filepath.Join(folder, test.InputPath))
			script, openLibs, err := vm.GetHealthScript(object)
			if err != nil || script == "" || openLibs {
				t.Fatalf("script %q, libraries %v, %v", script, openLibs, err)
			}
			found, err := vm.ExecuteHealthLua(object, script)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*found, test.HealthStatus) {
				t.Errorf("expected %v, found %v", test.HealthStatus, *found)
			}
		})
	}
}

type actionSuite struct {
	DiscoveryTests []struct {
		InputPath string
		Result    []v1alpha1.ResourceAction
	}
	ActionTests []struct {
		Action             string
		InputPath          string
		ExpectedOutputPath string
	}
}

func TestDiscovery(t *testing.T) {
	vm := machine(t)
	var suite actionSuite
	read(t, folder+"/actions/action_test.yaml", &suite)
	if len(suite.DiscoveryTests) == 0 {
		t.Fatal("no tests")
	}
	for _, test := range suite.DiscoveryTests {
		t.Run(test.InputPath, func(t *testing.T) {
			object := object(t, filepath.Join(folder, "actions", test.InputPath))
			scripts, err := vm.GetResourceActionDiscovery(object)
			if err != nil {
				t.Fatal(err)
			}
			found, err := vm.ExecuteResourceActionDiscovery(object, scripts)
			if err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(found, func(a, b v1alpha1.ResourceAction) int {
				return strings.Compare(a.Name, b.Name)
			})
			if !slices.EqualFunc(found, test.Result, func(a, b v1alpha1.ResourceAction) bool {
				return reflect.DeepEqual(a, b)
			}) {
				t.Errorf("expected %v, found %v", test.Result, found)
			}
		})
	}
}

func TestActions(t *testing.T) {
	vm := machine(t)
	var suite actionSuite
	read(t, folder+"/actions/action_test.yaml", &suite)
	if len(suite.ActionTests) == 0 {
		t.Fatal("no tests")
	}
	for _, test := range suite.ActionTests {
		t.Run(test.Action+" "+test.InputPath, func(t *testing.T) {
			input := object(t, filepath.Join(folder, "actions", test.InputPath))
			expected := object(t, filepath.Join(folder, "actions", test.ExpectedOutputPath))
			action, err := vm.GetResourceAction(input, test.Action)
			if err != nil {
				t.Fatal(err)
			}
			impacted, err := vm.ExecuteResourceAction(input, action.ActionLua, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(impacted) != 1 || impacted[0].K8SOperation != lua.PatchOperation {
				t.Fatalf("not one patch: %v", impacted)
			}
			if found := impacted[0].UnstructuredObj; !reflect.DeepEqual(found, expected) {
				t.Errorf("expected %v, found %v", expected, found)
			}
		})
	}
}

func object(t *testing.T, path string) *unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	object := &unstructured.Unstructured{}
	if text, err = yaml.YAMLToJSON(text); err == nil {
		err = object.UnmarshalJSON(text)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return object
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
