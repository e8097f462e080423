-- Remembers what was recommended to a user in an arm; a full record begins anew. Nothing of a user
-- who is not (or no longer) known.
-- KEYS  1 user, 2 shown      ARGV  1 lifetime in seconds, 2 most items, 3 arm, then items
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
if redis.call('HLEN', KEYS[2]) + #ARGV - 3 > tonumber(ARGV[2]) then
  redis.call('DEL', KEYS[2])
end
for i = 4, #ARGV do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[3])
end
redis.call('EXPIRE', KEYS[2], ARGV[1])
return 1
