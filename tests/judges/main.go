// Judges prints tool verdicts: how deployment tools read an ImageExportJob. The tools are kstatus in
// both editions, Flux's conditions checker and wait, and Argo CD with the shipped Lua scripts. This
// file has the command line; the package argo runs scripts as Argo CD does, verdict.go and wait.go
// call the code of the other tools.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"imageexport.dev/tests/judges/argo"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const usage = `usage:
  judges [--argocd DIR] [FILE…]
        one tool verdict, a JSON line, for each Kubernetes object: of the YAML files, or else on stdin (a
        JSON array or JSON values); DIR holds health.lua and actions/ as in Argo CD's
        resource_customizations
  judges argocd-test DIR
        runs health_test.yaml and actions/action_test.yaml of DIR
  judges flux-wait --kubeconfig FILE -n NAMESPACE --timeout DURATION NAME…
        waits for ImageExportJobs as Flux's kustomize-controller does; prints "ready" or its error
exit codes: 0, 1 where a test deviates or a wait fails, 2 where no verdict is possible
`

// errFailed: a test deviates or a wait fails. It has been printed, and the exit code is 1.
var errFailed = errors.New("failed")

func main() {
	err := run(os.Args[1:], os.Stdin, os.Stdout)
	switch {
	case errors.Is(err, errFailed):
		os.Exit(1)
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "judges:", err)
		os.Exit(2)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	command := ""
	if len(args) > 0 && (args[0] == "argocd-test" || args[0] == "flux-wait") {
		command, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("judges", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usage) }
	switch command {
	case "argocd-test":
		if err := flags.Parse(args); err != nil {
			return err
		}
		if flags.NArg() != 1 {
			return errors.New("argocd-test takes one folder")
		}
		return argocdTest(flags.Arg(0), out)
	case "flux-wait":
		return fluxWait(flags, args, out)
	default:
		folder := flags.String("argocd", "", "folder with health.lua and actions/")
		if err := flags.Parse(args); err != nil {
			return err
		}
		objects, err := readObjects(flags.Args(), in)
		if err != nil {
			return err
		}
		return judge(objects, *folder, out)
	}
}

func judge(objects []*unstructured.Unstructured, folder string, out io.Writer) error {
	var scripts *argo.Scripts
	if folder != "" {
		var err error
		if scripts, err = argo.Load(folder); err != nil {
			return err
		}
	}
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	for i, object := range objects {
		verdict, err := verdictOn(object, scripts)
		if err != nil {
			return fmt.Errorf("object %d (%s): %w", i, object.GetName(), err)
		}
		if err := lines.Encode(verdict); err != nil {
			return err
		}
	}
	return nil
}

func argocdTest(folder string, out io.Writer) error {
	report, err := argo.Test(folder)
	if err != nil {
		return err
	}
	for _, deviation := range report.Deviations {
		fmt.Fprintln(out, deviation)
	}
	fmt.Fprintf(out, "%d tests, %d deviations\n", report.Tests, len(report.Deviations))
	if len(report.Deviations) > 0 {
		return errFailed
	}
	return nil
}

func readObjects(files []string, in io.Reader) ([]*unstructured.Unstructured, error) {
	if len(files) == 0 {
		return decodeObjects(in)
	}
	objects := make([]*unstructured.Unstructured, len(files))
	for i, file := range files {
		var err error
		if objects[i], err = argo.ReadObject(file); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// decodeObjects reads one JSON array of objects, or JSON objects one after the other.
func decodeObjects(in io.Reader) ([]*unstructured.Unstructured, error) {
	var values []json.RawMessage
	for decoder := json.NewDecoder(bufio.NewReader(in)); ; {
		var value json.RawMessage
		if err := decoder.Decode(&value); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("reading objects: %w", err)
		}
		var list []json.RawMessage
		if json.Unmarshal(value, &list) == nil {
			values = append(values, list...)
		} else {
			values = append(values, value)
		}
	}
	objects := make([]*unstructured.Unstructured, len(values))
	for i, value := range values {
		objects[i] = &unstructured.Unstructured{}
		if err := objects[i].UnmarshalJSON(value); err != nil {
			return nil, fmt.Errorf("object %d: %w", i, err)
		}
	}
	return objects, nil
}
