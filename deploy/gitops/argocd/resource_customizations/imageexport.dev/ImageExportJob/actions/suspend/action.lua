-- Stops asking about the job.
obj.spec.suspend = true
return obj
