-- Pauses polling of the job.
obj.spec.suspend = true
return obj
