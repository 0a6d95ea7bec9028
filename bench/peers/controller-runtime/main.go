// The operator that a team would write with controller-runtime: as kubebuilder lays it out, or --tuned. It has the
// cloud's URL and the token from its environment, where a real one would read a Secret.
package main

import (
	"flag"
	"net/http"
	"os"
	"strconv"
	"time"

	"go.uber.org/zap/zapcore"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

// Polls and writes in flight of the tuned form: more throughput is not to be had from an API server.
const concurrency = 32

func main() {
	// --kubeconfig and KUBECONFIG are controller-runtime's own.
	tuned := flag.Bool("tuned", false, "workers, pooled connections, no managedFields in memory, "+
		"no reconciliation for the own writes, and Retry-After")
	flag.Parse()
	ctrl.SetLogger(zap.New(zap.Level(zapcore.ErrorLevel)))
	if err := run(*tuned); err != nil {
		log.Log.Error(err, "ended")
		os.Exit(1)
	}
}

func run(tuned bool) error {
	seconds, err := strconv.Atoi(os.Getenv("POLL_PERIOD"))
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := addToScheme(scheme); err != nil {
		return err
	}
	options := ctrl.Options{Scheme: scheme, Metrics: server.Options{BindAddress: "0"}}
	if tuned {
		options.Cache = cache.Options{DefaultTransform: cache.TransformStripManagedFields()}
	}
	manager, err := ctrl.NewManager(ctrl.GetConfigOrDie(), options)
	if err != nil {
		return err
	}
	reconciler := &reconciler{
		Client: manager.GetClient(),
		http:   &http.Client{Timeout: 20 * time.Second},
		cloud:  os.Getenv("CLOUD_URL"),
		token:  os.Getenv("CLOUD_TOKEN"),
		period: time.Duration(seconds) * time.Second,
		strewn: os.Getenv("POLL_STREWN") == "true",
		tuned:  tuned,
	}
	var settings controller.Options
	var watch []builder.ForOption
	if tuned {
		settings.MaxConcurrentReconciles = concurrency
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConnsPerHost = concurrency
		reconciler.http.Transport = transport
		watch = append(watch, builder.WithPredicates(predicate.GenerationChangedPredicate{}))
	}
	err = ctrl.NewControllerManagedBy(manager).
		For(&ImageExportJob{}, watch...).
		WithOptions(settings).
		Complete(reconciler)
	if err != nil {
		return err
	}
	return manager.Start(ctrl.SetupSignalHandler())
}
