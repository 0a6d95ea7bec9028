// A customization's scripts, and the health that health.lua returns.

package argo

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Scripts are those of one kind, as its folder in resource_customizations has them.
type Scripts struct {
	health    string
	discovery string
	folder    string
}

// Load reads health.lua and actions/discovery.lua; actions are read when they are run.
func Load(folder string) (*Scripts, error) {
	health, err := os.ReadFile(filepath.Join(folder, "health.lua"))
	if err != nil {
		return nil, err
	}
	discovery, err := os.ReadFile(filepath.Join(folder, "actions", "discovery.lua"))
	if err != nil {
		return nil, err
	}
	return &Scripts{string(health), string(discovery), folder}, nil
}

// Health is Argo CD's HealthStatus.
type Health struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

var statuses = []string{"Unknown", "Progressing", "Suspended", "Healthy", "Degraded", "Missing"}

// Health runs health.lua. A result that Argo CD replaces, nothing or an unknown status, is replaced in
// the same way.
func (s *Scripts) Health(object *unstructured.Unstructured) (*Health, error) {
	result, err := runScript(s.health, object)
	if err != nil {
		return nil, err
	}
	health := &Health{}
	if result == nil {
		return health, nil
	}
	if err := json.Unmarshal(result, health); err != nil {
		// Lua's empty table becomes an empty list.
		if wrong := new(json.UnmarshalTypeError); errors.As(err, &wrong) && wrong.Value == "array" {
			return &Health{}, nil
		}
		return nil, err
	}
	if !slices.Contains(statuses, health.Status) {
		return &Health{"Unknown", "Lua returned an invalid health status"}, nil
	}
	return health, nil
}
