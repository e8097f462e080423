-- Replaces one field of a hash if it still holds what the caller read.
-- KEYS  1 hash      ARGV  1 field, 2 expected value ("": no such field), 3 new value
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
