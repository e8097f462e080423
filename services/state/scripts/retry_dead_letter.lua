-- Queues an update again that was put aside.
-- KEYS  1 dead letters, 2 events, 3 user      ARGV  1 entry id, 2 user id
-- Gives 1 if it was still there; of a user who was forgotten nothing is queued.
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then
  return 0
end
local version = redis.call('HGET', KEYS[3], 'version')
if version then
  redis.call('XADD', KEYS[2], '*', 'user_id', ARGV[2], 'version', version)
end
return 1
