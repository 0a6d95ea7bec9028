package main

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var groupVersion = schema.GroupVersion{Group: "imageexport.dev", Version: "v1alpha1"}

func addToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(groupVersion, &ImageExportJob{}, &ImageExportJobList{})
	metav1.AddToGroupVersion(scheme, groupVersion)
	return nil
}

// ImageExportJob has what this operator uses.
type ImageExportJob struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ImageExportJobSpec   `json:"spec"`
	Status ImageExportJobStatus `json:"status,omitempty"`
}

// ImageExportJobSpec names the job.
type ImageExportJobSpec struct {
	ProjectID           string              `json:"projectID"`
	JobID               string              `json:"jobID"`
	CloudCredentialsRef CloudCredentialsRef `json:"cloudCredentialsRef"`
}

// CloudCredentialsRef names the credentials.
type CloudCredentialsRef struct {
	SecretName string `json:"secretName"`
	CloudName  string `json:"cloudName"`
}

// ImageExportJobStatus is what the cloud has reported.
type ImageExportJobStatus struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	Status             string             `json:"status,omitempty"`
	ImageID            string             `json:"imageID,omitempty"`
	FailReason         string             `json:"failReason,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
}

// ImageExportJobList is a list of them.
type ImageExportJobList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []ImageExportJob `json:"items"`
}

// DeepCopyInto is what controller-gen would write.
func (in *ImageExportJob) DeepCopyInto(out *ImageExportJob) {
	*out = *in
	in.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	if in.Status.Conditions != nil {
		out.Status.Conditions = make([]metav1.Condition, len(in.Status.Conditions))
		for i := range in.Status.Conditions {
			in.Status.Conditions[i].DeepCopyInto(&out.Status.Conditions[i])
		}
	}
}

// DeepCopy is what controller-gen would write.
func (in *ImageExportJob) DeepCopy() *ImageExportJob {
	out := new(ImageExportJob)
	in.DeepCopyInto(out)
	return out
}

// DeepCopyObject makes it a runtime.Object.
func (in *ImageExportJob) DeepCopyObject() runtime.Object {
	return in.DeepCopy()
}

// DeepCopyObject makes it a runtime.Object.
func (in *ImageExportJobList) DeepCopyObject() runtime.Object {
	out := new(ImageExportJobList)
	*out = *in
	in.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = make([]ImageExportJob, len(in.Items))
	for i := range in.Items {
		in.Items[i].DeepCopyInto(&out.Items[i])
	}
	return out
}
