# Follows an image job with hashicorp/kubernetes: `apply` waits for its end, either way, and fails
# unless there is an image then. The provider block, with its credentials, is yours.

terraform {
  required_version = ">= 1.4"
  required_providers {
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = ">= 2.10"
    }
  }
}

variable "namespace" { type = string }
variable "project_id" { type = string }
variable "job_id" { type = string }

resource "kubernetes_manifest" "image_export" {
  manifest = {
    apiVersion = "imageexport.dev/v1alpha1"
    kind       = "ImageExportJob"
    metadata = {
      name      = "nightly-golden-image"
      namespace = var.namespace
    }
    spec = {
      projectID           = var.project_id
      jobID               = var.job_id
      cloudCredentialsRef = { secretName = "otc", cloudName = "otc" }
    }
  }

  wait {
    # Set on SUCCESS and on FAIL. Not `"status.status" = "SUCCESS|FAIL"`: patterns are unanchored,
    # and a PARTIAL_FAIL of the cloud's would match.
    fields = { "status.completionTime" = ".+" }
  }

  timeouts {
    create = "3h"
    update = "3h"
  }

  lifecycle {
    # The ids cannot be changed: another job is another object.
    replace_triggered_by = [terraform_data.ids]
  }
}

resource "terraform_data" "ids" {
  input = [var.project_id, var.job_id]
}

# kubernetes_manifest itself keeps no status.
data "kubernetes_resource" "image_export" {
  api_version = "imageexport.dev/v1alpha1"
  kind        = "ImageExportJob"
  metadata {
    name      = kubernetes_manifest.image_export.manifest.metadata.name
    namespace = kubernetes_manifest.image_export.manifest.metadata.namespace
  }
  depends_on = [kubernetes_manifest.image_export]

  lifecycle {
    postcondition {
      condition     = self.object.status.status == "SUCCESS" && self.object.status.imageID != null
      error_message = "No image: the job ended as ${self.object.status.status}, ${coalesce(self.object.status.failReason, "without a reason")}"
    }
  }
}

output "image_id" {
  value = data.kubernetes_resource.image_export.object.status.imageID
}
