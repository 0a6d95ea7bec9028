-- Only an unfinished job can be suspended, and only a suspended one resumed.
local actions = {}
local finished = obj.status ~= nil and obj.status.completionTime ~= nil
if obj.spec.suspend then
  actions["resume"] = { iconClass = "fa fa-fw fa-play", displayName = "Resume" }
elseif not finished then
  actions["suspend"] = { iconClass = "fa fa-fw fa-pause", displayName = "Suspend" }
end
return actions
