// Waiting for live objects as Flux's kustomize-controller does.

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/cli-utils/pkg/object"
	"github.com/fluxcd/pkg/ssa"
	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// fluxWait prints "ready" or, with exit code 1, the error that a Kustomization would show. Flux
// polls every 5 s; the second here only shortens tests.
func fluxWait(flags *flag.FlagSet, args []string, out io.Writer) error {
	kubeconfig := flags.String("kubeconfig", "", "file that names the API server")
	namespace := flags.String("n", "default", "namespace of the objects")
	timeout := flags.Duration("timeout", time.Minute, "how long to wait")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *kubeconfig == "" || flags.NArg() == 0 {
		return errors.New("flux-wait takes --kubeconfig and at least one name")
	}
	log.SetLogger(logr.Discard())
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	api, err := client.New(config, client.Options{})
	if err != nil {
		return err
	}
	var set object.ObjMetadataSet
	for _, name := range flags.Args() {
		set = append(set, object.ObjMetadata{
			Namespace: *namespace,
			Name:      name,
			GroupKind: schema.GroupKind{Group: "imageexport.dev", Kind: "ImageExportJob"},
		})
	}
	poller := polling.NewStatusPoller(api, api.RESTMapper(), polling.Options{})
	manager := ssa.NewResourceManager(api, poller, ssa.Owner{Field: "judges", Group: "imageexport.dev"})
	err = manager.WaitForSet(set, ssa.WaitOptions{
		Interval: time.Second,
		Timeout:  *timeout,
		FailFast: true,
	})
	if err != nil {
		fmt.Fprintln(out, err)
		return errFailed
	}
	fmt.Fprintln(out, "ready")
	return nil
}
