-- Queues an update of one user if the preference does not cover the history, or in any case.
-- KEYS  1 user, 2 events      ARGV  1 user id, 2 what it is done for, 3 "1": in any case
-- Gives 1 if queued, 0 if there is nothing to update.
local now = redis.call('HMGET', KEYS[1], 'version', 'folded_version')
if not now[1] or (ARGV[3] ~= '1' and tonumber(now[1]) <= tonumber(now[2])) then
  return 0
end
redis.call('XADD', KEYS[2], '*', 'user_id', ARGV[1], 'version', now[1], 'origin', ARGV[2])
return 1
