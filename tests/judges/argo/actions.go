// The actions that a customization offers, and the change that each makes to an object.

package argo

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Action is one that discovery.lua names, with the fields that Argo CD knows.
type Action struct {
	Name        string `json:"name,omitempty"`
	Disabled    bool   `json:"disabled,omitempty"`
	IconClass   string `json:"iconClass,omitempty"`
	DisplayName string `json:"displayName,omitempty"`
}

// Discover runs actions/discovery.lua; the actions come in the order of their names.
func (s *Scripts) Discover(object *unstructured.Unstructured) ([]Action, error) {
	result, err := runScript(s.discovery, object)
	if err != nil {
		return nil, err
	}
	if result == nil {
		return nil, errors.New("expect table output from Lua script, not nil")
	}
	if string(result) == "[]" { // Lua's empty table
		return nil, nil
	}
	found := map[string]json.RawMessage{}
	if err := json.Unmarshal(result, &found); err != nil {
		return nil, err
	}
	var actions []Action
	for name, fields := range found {
		action := Action{Name: name}
		if string(fields) != "[]" {
			if err := json.Unmarshal(fields, &action); err != nil {
				return nil, fmt.Errorf("action %s: %w", name, err)
			}
		}
		actions = append(actions, action)
	}
	slices.SortFunc(actions, func(a, b Action) int { return strings.Compare(a.Name, b.Name) })
	return actions, nil
}

// Enabled gives the names of the actions that can be chosen.
func Enabled(actions []Action) []string {
	names := []string{}
	for _, action := range actions {
		if !action.Disabled {
			names = append(names, action.Name)
		}
	}
	return names
}

// Act runs actions/NAME/action.lua, which returns the changed object; the other form, a list of
// objects and operations, is an error.
func (s *Scripts) Act(name string, object *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	script, err := os.ReadFile(filepath.Join(s.folder, "actions", name, "action.lua"))
	if err != nil {
		return nil, err
	}
	result, err := runScript(string(script), object)
	if err != nil {
		return nil, err
	}
	changed := &unstructured.Unstructured{}
	if err := changed.UnmarshalJSON(result); err != nil {
		return nil, fmt.Errorf("not one object: %w", err)
	}
	restoreEmpty(changed.Object, object.Object)
	return changed, nil
}

// restoreEmpty gives back their type to empty objects, which come out of Lua as empty lists.
func restoreEmpty(changed, original any) {
	switch changed := changed.(type) {
	case map[string]any:
		original, _ := original.(map[string]any)
		for key, value := range changed {
			list, isList := value.([]any)
			_, wasObject := original[key].(map[string]any)
			if isList && len(list) == 0 && wasObject {
				changed[key] = map[string]any{}
			} else {
				restoreEmpty(value, original[key])
			}
		}
	case []any:
		original, _ := original.([]any)
		for i := range min(len(changed), len(original)) {
			restoreEmpty(changed[i], original[i])
		}
	}
}
