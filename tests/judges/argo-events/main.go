// Runs an EventSource of ImageExportJobs and its Sensor by Argo Events' own code, without an event bus
// between them: each event goes straight to the triggers that depend on it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/argoproj/argo-events/pkg/apis/events/v1alpha1"
	eventsourcecommon "github.com/argoproj/argo-events/pkg/eventsources/common"
	"github.com/argoproj/argo-events/pkg/eventsources/sources/resource"
	"github.com/argoproj/argo-events/pkg/metrics"
	"github.com/argoproj/argo-events/pkg/reconciler/sensor"
	"github.com/argoproj/argo-events/pkg/sensors/dependencies"
	standardk8s "github.com/argoproj/argo-events/pkg/sensors/triggers/standard-k8s"
	"github.com/argoproj/argo-events/pkg/shared/logging"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

const usage = `usage: argo-events EVENTSOURCE SENSOR NAMESPACE SENSOR-KUBECONFIG

The event source listens with the rights of $KUBECONFIG. Runs until it is ended.`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 4 {
		return errors.New(usage)
	}
	var source v1alpha1.EventSource
	var listener v1alpha1.Sensor
	for path, into := range map[string]any{args[0]: &source, args[1]: &listener} {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := yaml.UnmarshalStrict(text, into); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	listener.Namespace = args[2]
	bus := &v1alpha1.EventBus{Spec: v1alpha1.EventBusSpec{JetStream: &v1alpha1.JetStreamBus{}}}
	if err := sensor.ValidateSensor(&listener, bus); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", args[3])
	if err != nil {
		return err
	}
	triggers := triggers{
		sensor:  &listener,
		client:  kubernetes.NewForConfigOrDie(config),
		dynamic: dynamic.NewForConfigOrDie(config),
	}
	ctx := logging.WithLogger(context.Background(), logging.NewArgoEventsLogger())
	ended := make(chan error)
	for name, of := range source.Spec.Resource {
		of.Namespace = args[2]
		events := &resource.EventListener{
			EventSourceName:     source.Name,
			EventName:           name,
			ResourceEventSource: of,
			Metrics:             metrics.NewMetrics(args[2]),
		}
		if err := events.ValidateEventSource(ctx); err != nil {
			return err
		}
		go func() {
			ended <- events.StartListening(ctx, func(data []byte, _ ...eventsourcecommon.Option) error {
				return triggers.receive(ctx, source.Name, name, data)
			})
		}()
	}
	return <-ended
}

type triggers struct {
	sensor  *v1alpha1.Sensor
	client  kubernetes.Interface
	dynamic dynamic.Interface
}

// receive executes the triggers of the one dependency that the event meets.
func (t triggers) receive(ctx context.Context, source, name string, data []byte) error {
	event := &v1alpha1.Event{
		Context: &v1alpha1.EventContext{Source: source, Subject: name, DataContentType: v1alpha1.MediaTypeJSON},
		Data:    data,
	}
	for _, dependency := range t.sensor.Spec.Dependencies {
		if dependency.EventSourceName != source || dependency.EventName != name {
			continue
		}
		passed, err := dependencies.Filter(event, dependency.Filters, dependency.FiltersLogicalOperator)
		if err != nil || !passed {
			return err
		}
		for _, trigger := range t.sensor.Spec.Triggers {
			if trigger.Template.Conditions != dependency.Name {
				continue
			}
			if err := t.execute(ctx, trigger.DeepCopy(), map[string]*v1alpha1.Event{dependency.Name: event}); err != nil {
				fmt.Printf("%s: failed: %v\n", trigger.Template.Name, err)
				return err
			}
			fmt.Printf("%s: executed\n", trigger.Template.Name)
		}
	}
	return nil
}

func (t triggers) execute(ctx context.Context, trigger *v1alpha1.Trigger, events map[string]*v1alpha1.Event) error {
	k8s := standardk8s.NewStandardK8sTrigger(t.client, t.dynamic, t.sensor, trigger, logging.FromContext(ctx))
	object, err := k8s.FetchResource(ctx)
	if err != nil {
		return err
	}
	if object, err = k8s.ApplyResourceParameters(events, object); err != nil {
		return err
	}
	_, err = k8s.Execute(ctx, events, object)
	return err
}
