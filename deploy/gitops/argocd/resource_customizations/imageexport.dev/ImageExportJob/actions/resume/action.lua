-- Resumes polling of the job.
obj.spec.suspend = false
return obj
