-- Asks about the job again.
obj.spec.suspend = false
return obj
