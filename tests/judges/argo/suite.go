// The tests beside the scripts, in the layout of Argo CD's repository.

package argo

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

type healthTests struct {
	Tests []struct {
		InputPath    string `json:"inputPath"`
		HealthStatus Health `json:"healthStatus"`
	} `json:"tests"`
}

type actionTests struct {
	DiscoveryTests []struct {
		InputPath string   `json:"inputPath"`
		Result    []Action `json:"result"`
	} `json:"discoveryTests"`
	ActionTests []struct {
		Action             string `json:"action"`
		InputPath          string `json:"inputPath"`
		ExpectedOutputPath string `json:"expectedOutputPath"`
	} `json:"actionTests"`
}

// Report counts the tests and has a line for each deviation.
type Report struct {
	Tests      int
	Deviations []string
}

func (r *Report) compare(test string, expected, found any) {
	r.Tests++
	if !reflect.DeepEqual(expected, found) {
		r.Deviations = append(r.Deviations,
			fmt.Sprintf("%s: expected %s, found %s", test, compact(expected), compact(found)))
	}
}

// Test runs health_test.yaml and actions/action_test.yaml. It fails where the tests themselves
// cannot be run, where there are none, or where an object of testdata has no test. Argo CD's own
// runner also accepts too few discovered actions, and ignores some differences of objects.
func Test(folder string) (*Report, error) {
	scripts, err := Load(folder)
	if err != nil {
		return nil, err
	}
	report := &Report{}
	if err := report.testHealth(scripts); err != nil {
		return nil, err
	}
	if err := report.testActions(scripts); err != nil {
		return nil, err
	}
	return report, nil
}

func (r *Report) testHealth(scripts *Scripts) error {
	var suite healthTests
	if err := readYAML(filepath.Join(scripts.folder, "health_test.yaml"), &suite); err != nil {
		return err
	}
	var tested []string
	for _, test := range suite.Tests {
		tested = append(tested, filepath.Join(scripts.folder, test.InputPath))
		object, err := ReadObject(filepath.Join(scripts.folder, test.InputPath))
		if err != nil {
			return err
		}
		health, err := scripts.Health(object)
		if err != nil {
			return fmt.Errorf("health of %s: %w", test.InputPath, err)
		}
		r.compare("health of "+test.InputPath, test.HealthStatus, *health)
	}
	present, err := filepath.Glob(filepath.Join(scripts.folder, "testdata", "*.yaml"))
	if err != nil {
		return err
	}
	for _, file := range present {
		if !slices.Contains(tested, file) {
			return fmt.Errorf("health_test.yaml does not test %s", file)
		}
	}
	if len(tested) == 0 {
		return fmt.Errorf("%s has no health tests", scripts.folder)
	}
	return nil
}

func (r *Report) testActions(scripts *Scripts) error {
	folder := filepath.Join(scripts.folder, "actions")
	var suite actionTests
	if err := readYAML(filepath.Join(folder, "action_test.yaml"), &suite); err != nil {
		return err
	}
	for _, test := range suite.DiscoveryTests {
		object, err := ReadObject(filepath.Join(folder, test.InputPath))
		if err != nil {
			return err
		}
		actions, err := scripts.Discover(object)
		if err != nil {
			return fmt.Errorf("actions of %s: %w", test.InputPath, err)
		}
		r.compare("actions of "+test.InputPath, append([]Action{}, test.Result...), append([]Action{}, actions...))
	}
	for _, test := range suite.ActionTests {
		object, err := ReadObject(filepath.Join(folder, test.InputPath))
		if err != nil {
			return err
		}
		expected, err := ReadObject(filepath.Join(folder, test.ExpectedOutputPath))
		if err != nil {
			return err
		}
		changed, err := scripts.Act(test.Action, object)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", test.Action, test.InputPath, err)
		}
		r.compare(test.Action+" of "+test.InputPath, expected.Object, changed.Object)
	}
	if len(suite.DiscoveryTests) == 0 || len(suite.ActionTests) == 0 {
		return fmt.Errorf("%s lacks discovery or action tests", folder)
	}
	return nil
}

func readYAML(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// ReadObject reads one Kubernetes object from a YAML file.
func ReadObject(path string) (*unstructured.Unstructured, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	object := &unstructured.Unstructured{}
	if text, err = yaml.YAMLToJSON(text); err == nil {
		err = object.UnmarshalJSON(text)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return object, nil
}

func compact(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(text)
}
