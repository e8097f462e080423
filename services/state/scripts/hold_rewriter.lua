-- Takes or extends the lease of the process that writes texts anew.
-- KEYS  1 lease      ARGV  1 the process and its models, 2 milliseconds
-- Gives the process that has the lease.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return holder
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
