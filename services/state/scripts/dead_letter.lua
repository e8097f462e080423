-- Moves one user's deliveries out of the way of the others, with the reason.
-- KEYS  1 events, 2 dead letters, 3 user
-- ARGV  1 consumer group, 2 most dead letters, 3 user id, 4 version, 5 reason, 6 milliseconds since
--       1970, then entry ids
local num_removed = 0
for i = 7, #ARGV do
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
  num_removed = num_removed + redis.call('XDEL', KEYS[1], ARGV[i])
end
-- None was left: the user was forgotten, or another worker settled them.
if num_removed > 0 then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'user_id', ARGV[3],
    'version', ARGV[4], 'reason', ARGV[5], 'failed_ms', ARGV[6])
end
-- Whoever sends it again gets all tries again.
redis.call('HDEL', KEYS[3], 'failures')
return num_removed
