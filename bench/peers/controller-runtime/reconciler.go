package main

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

type reconciler struct {
	client.Client
	http         *http.Client
	cloud, token string
	period       time.Duration
	strewn       bool
	tuned        bool
	// Objects that have waited for their instant, where polls are strewn.
	seen sync.Map
}

// What the cloud answers.
type answer struct {
	Status   string `json:"status"`
	Entities struct {
		ImageID string `json:"image_id"`
	} `json:"entities"`
	FailReason string `json:"fail_reason"`
}

func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var job ImageExportJob
	if err := r.Get(ctx, request.NamespacedName, &job); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if hasEnded(job.Status.Status) {
		return ctrl.Result{}, nil
	}
	if r.strewn {
		if _, seen := r.seen.LoadOrStore(job.UID, true); !seen {
			return ctrl.Result{RequeueAfter: r.delay(&job)}, nil
		}
	}
	report, after, err := r.poll(ctx, &job)
	if err != nil || after > 0 {
		return ctrl.Result{RequeueAfter: after}, err
	}
	before := job.DeepCopy()
	if changed(&job, report) {
		if err := r.Status().Patch(ctx, &job, client.MergeFrom(before)); err != nil {
			return ctrl.Result{}, err
		}
		if hasEnded(job.Status.Status) {
			return ctrl.Result{}, nil
		}
	}
	return ctrl.Result{RequeueAfter: r.period}, nil
}

// poll asks the cloud. The duration is that of a Retry-After.
func (r *reconciler) poll(ctx context.Context, job *ImageExportJob) (*answer, time.Duration, error) {
	url := fmt.Sprintf("%s/v1/%s/jobs/%s", r.cloud, job.Spec.ProjectID, job.Spec.JobID)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	request.Header.Set("X-Auth-Token", r.token)
	response, err := r.http.Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer response.Body.Close()
	if r.tuned && response.StatusCode == http.StatusTooManyRequests {
		_, _ = io.Copy(io.Discard, response.Body)
		seconds, err := strconv.Atoi(response.Header.Get("Retry-After"))
		if err != nil {
			seconds = 5
		}
		return nil, time.Duration(seconds) * time.Second, nil
	}
	if response.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("the cloud: %s", response.Status)
	}
	var report answer
	if err := json.NewDecoder(response.Body).Decode(&report); err != nil {
		return nil, 0, err
	}
	return &report, 0, nil
}

// changed puts the report into the status, unless the object shows it already.
func changed(job *ImageExportJob, report *answer) bool {
	ready, reason := metav1.ConditionUnknown, "JobRunning"
	switch report.Status {
	case "SUCCESS":
		ready, reason = metav1.ConditionTrue, "JobSucceeded"
	case "FAIL":
		ready, reason = metav1.ConditionFalse, "JobFailed"
	case "INIT":
		reason = "JobInitializing"
	}
	status := &job.Status
	condition := meta.FindStatusCondition(status.Conditions, "Ready")
	if status.Status == report.Status && condition != nil && condition.Reason == reason {
		return false
	}
	status.ObservedGeneration = job.Generation
	status.Status = report.Status
	status.ImageID = report.Entities.ImageID
	status.FailReason = report.FailReason
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type:               "Ready",
		Status:             ready,
		Reason:             reason,
		Message:            fmt.Sprintf("Job %s is %s.", job.Spec.JobID, report.Status),
		ObservedGeneration: job.Generation,
	})
	return true
}

func (r *reconciler) delay(job *ImageExportJob) time.Duration {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(job.UID))
	return r.period * time.Duration(hash.Sum32()%1000) / 1000
}

func hasEnded(status string) bool {
	return status == "SUCCESS" || status == "FAIL"
}
