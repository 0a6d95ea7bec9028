-- Health of an ImageExportJob: the operator's conditions decide, unless they are older than the spec.
local function condition(name)
  for _, c in ipairs(obj.status.conditions or {}) do
    if c.type == name then
      return c
    end
  end
  return {}
end

-- Before the operator has seen the object, the CRD's default of observedGeneration is -1.
local observed = obj.status and obj.status.observedGeneration
if observed == nil or observed < (obj.metadata.generation or 0) then
  return { status = "Progressing", message = "waiting for the operator" }
end

local stalled = condition("Stalled")
if stalled.status == "True" then
  return { status = "Degraded", message = stalled.message }
end

local reconciling = condition("Reconciling")
if reconciling.status == "True" then
  return { status = "Progressing", message = reconciling.message }
end

local ready = condition("Ready")
if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
if ready.reason == "Suspended" then
  return { status = "Suspended", message = ready.message }
end
return { status = "Progressing", message = ready.message or "waiting for the operator" }
