// What Flux and Crossplane do with their objects, by their own code, for the program `run` beside
// this file: nothing of it is written here anew.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	crossplane "github.com/crossplane-contrib/provider-kubernetes/apis/namespaced/object/v1alpha1"
	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	flux "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/utils"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/yaml"
)

const usage = `usage: verify decode                 strictly decode the objects on stdin
       verify apply [--force]        apply them as kustomize-controller does
       verify wait TIMEOUT           wait for them as spec.wait does`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	objects, err := utils.ReadObjects(strings.NewReader(string(input)))
	if err != nil {
		return err
	}
	if len(objects) == 0 {
		return errors.New("no object on stdin")
	}
	switch {
	case args[0] == "decode":
		return each(objects, decode)
	case args[0] == "apply":
		manager, err := newManager()
		if err != nil {
			return err
		}
		options := ssa.DefaultApplyOptions()
		options.Force = len(args) > 1 && args[1] == "--force"
		_, err = manager.ApplyAll(context.Background(), objects, options)
		return err
	case args[0] == "wait" && len(args) == 2:
		timeout, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		manager, err := newManager()
		if err != nil {
			return err
		}
		return manager.Wait(objects, ssa.WaitOptions{Interval: time.Second, Timeout: timeout, FailFast: true})
	}
	return errors.New(usage)
}

func newManager() (*ssa.ResourceManager, error) {
	kubeconfig, err := config.GetConfig()
	if err != nil {
		return nil, err
	}
	c, err := client.New(kubeconfig, client.Options{})
	if err != nil {
		return nil, err
	}
	poller := polling.NewStatusPoller(c, c.RESTMapper(), polling.Options{})
	owner := ssa.Owner{Field: "kustomize-controller", Group: "kustomize.toolkit.fluxcd.io"}
	return ssa.NewResourceManager(c, poller, owner), nil
}

func each(objects []*unstructured.Unstructured, do func(*unstructured.Unstructured) error) error {
	for _, object := range objects {
		if err := do(object); err != nil {
			return fmt.Errorf("%s: %w", utils.FmtUnstructured(object), err)
		}
	}
	return nil
}

func decode(object *unstructured.Unstructured) error {
	types := map[string]any{
		flux.GroupVersion.WithKind(flux.KustomizationKind).String(): &flux.Kustomization{},
		crossplane.ObjectGroupVersionKind.String():                  &crossplane.Object{},
	}
	into, known := types[object.GroupVersionKind().String()]
	if !known {
		return errors.New("not a type that is decoded here")
	}
	text, err := object.MarshalJSON()
	if err != nil {
		return err
	}
	return yaml.UnmarshalStrict(text, into)
}
