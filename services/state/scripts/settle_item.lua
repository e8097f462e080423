-- Writes an item's summary, or why there is none, if the item is still that version.
-- KEYS  1 item      ARGV  1 version, 2 status, 3 field, 4 its text, 5 who wrote it
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then
  return 0
end
redis.call('HDEL', KEYS[1], 'summary', 'reason', 'failures')
redis.call('HSET', KEYS[1], 'status', ARGV[2], 'writer', ARGV[5], ARGV[3], ARGV[4])
return 1
