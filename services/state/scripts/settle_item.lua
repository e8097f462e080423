-- Writes the summary of a waiting item, or why there is none, if the item is still that version.
-- KEYS  1 item      ARGV  1 version, 2 status, 3 field, 4 its text
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then
  return 0
end
redis.call('HDEL', KEYS[1], 'summary', 'reason', 'failures')
redis.call('HSET', KEYS[1], 'status', ARGV[2], ARGV[3], ARGV[4])
return 1
