// The verdict of each tool's own code on one object.

package main

import (
	"context"
	"errors"
	"fmt"

	fluxstatus "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/runtime/conditions"
	"github.com/fluxcd/pkg/runtime/conditions/check"
	"imageexport.dev/tests/judges/argo"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// verdict is a tool verdict, one line of output. Flux's lists hold the failures of its checker; empty
// is a pass.
type verdict struct {
	Kstatus        kstatus      `json:"kstatus"`
	FluxKstatus    kstatus      `json:"fluxKstatus"`
	FluxInProgress []string     `json:"fluxInProgress"`
	FluxAtRest     []string     `json:"fluxAtRest"`
	Argo           *argo.Health `json:"argo,omitzero"`
	ArgoActions    []string     `json:"argoActions,omitzero"`
}

type kstatus struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

// verdictOn runs every tool; Argo CD only where there are scripts.
func verdictOn(object *unstructured.Unstructured, scripts *argo.Scripts) (*verdict, error) {
	plain, err := status.Compute(object)
	if err != nil {
		return nil, fmt.Errorf("kstatus: %w", err)
	}
	flux, err := fluxstatus.Compute(object)
	if err != nil {
		return nil, fmt.Errorf("kstatus of Flux: %w", err)
	}
	polarity := &check.Conditions{NegativePolarity: []string{"Stalled", "Reconciling"}}
	v := &verdict{
		Kstatus:        kstatus{plain.Status.String(), plain.Message},
		FluxKstatus:    kstatus{flux.Status.String(), flux.Message},
		FluxInProgress: failures(check.NewInProgressChecker(nil), object),
		FluxAtRest:     failures(check.NewChecker(nil, polarity), object),
	}
	if scripts == nil {
		return v, nil
	}
	if v.Argo, err = scripts.Health(object); err != nil {
		return nil, fmt.Errorf("health.lua: %w", err)
	}
	actions, err := scripts.Discover(object)
	if err != nil {
		return nil, fmt.Errorf("discovery.lua: %w", err)
	}
	v.ArgoActions = argo.Enabled(actions)
	return v, nil
}

// failures runs Flux's checker on the object as it is, without fetching it; warnings do not count.
func failures(checker *check.Checker, object *unstructured.Unstructured) []string {
	checker.DisableFetch = true
	fail, _ := checker.Check(context.Background(), conditions.UnstructuredGetter(object))
	found := []string{}
	var several utilerrors.Aggregate
	if errors.As(fail, &several) {
		for _, err := range several.Errors() {
			found = append(found, err.Error())
		}
	} else if fail != nil {
		found = append(found, fail.Error())
	}
	return found
}
