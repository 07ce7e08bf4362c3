-- The health of a ServiceRegistration for Argo CD. docs/operations.md says how to install it.

-- The health of a dry run in which nothing would prevent publishing. With "Suspended", Argo CD shows it with a sign of
-- its own, but a sync that has later waves or PostSync hooks waits until the dry run ends.
local dry_run = "Healthy"

local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local ready = conditions.Ready

local function is_true(condition)
  return condition ~= nil and condition.status == "True"
end

local function told(condition)
  return condition.reason .. ": " .. condition.message
end

if ready == nil then
  return { status = "Progressing", message = "waiting for the operator" }
end
if status.observedGeneration ~= nil and status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "the operator has not reported on the present spec yet" }
end
-- A person has to do something.
if is_true(conditions.Stalled) then
  return { status = "Degraded", message = told(conditions.Stalled) }
end
-- Not looked at yet, or a write failed and is tried again.
if not is_true(ready) then
  return { status = "Progressing", message = told(ready) }
end
if ready.reason == "DryRun" then
  return { status = dry_run, message = ready.message }
end
-- A registration without instances is healthy, too: they may be deployed after it.
return { status = "Healthy", message = ready.message }
