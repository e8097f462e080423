-- Saves a preference state if nobody else did since it was loaded.
-- KEYS  1 user, 2 history, 3 preference, 4 scores
-- ARGV  1 expected revision, 2 history version the preference covers, 3 the state,
--       4 lifetime in seconds, 5 "1" if the preference's text changed
--       and to drop written blocks from the history: 6 expected history version, 7 timestamp and
--       8 event id of the last interaction that late ones may not precede, then the event ids
-- Gives the new revision, or 0 if the user was saved, forgotten or (when dropping) extended since.
local now = redis.call('HMGET', KEYS[1], 'revision', 'version')
if now[1] ~= ARGV[1] or (ARGV[6] and now[2] ~= ARGV[6]) then
  return 0
end
redis.call('HSET', KEYS[1], 'folded_version', ARGV[2])
redis.call('SET', KEYS[3], ARGV[3])
if ARGV[6] then
  redis.call('HSET', KEYS[1], 'dropped_ms', ARGV[7], 'dropped_event', ARGV[8])
  for i = 9, #ARGV do
    redis.call('HDEL', KEYS[2], ARGV[i])
  end
end
if ARGV[5] == '1' then
  redis.call('DEL', KEYS[4])
end
redis.call('HDEL', KEYS[1], 'failures')
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[4])
redis.call('EXPIRE', KEYS[3], ARGV[4])
return redis.call('HINCRBY', KEYS[1], 'revision', 1)
