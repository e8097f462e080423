-- Remembers margins of one user; nothing of a user who is not (or no longer) known.
-- KEYS  1 user, 2 scores      ARGV  1 lifetime in seconds, 2 most margins, then key, margin, ...
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
if redis.call('HLEN', KEYS[2]) + (#ARGV - 2) / 2 > tonumber(ARGV[2]) then
  redis.call('DEL', KEYS[2])
end
for i = 3, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', KEYS[2], ARGV[1])
return 1
