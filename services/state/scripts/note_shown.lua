-- Remembers what was recommended to a user in an arm; a full record begins anew.
-- KEYS  1 shown      ARGV  1 lifetime in seconds, 2 most items, 3 arm, then items
if redis.call('HLEN', KEYS[1]) + #ARGV - 3 > tonumber(ARGV[2]) then
  redis.call('DEL', KEYS[1])
end
for i = 4, #ARGV do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[3])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
