-- Forgets consumers that hold no work and are gone: the one that leaves, and long silent ones.
-- KEYS  1 stream      ARGV  1 consumer group, 2 who leaves ("" for nobody), 3 silent milliseconds
if redis.call('EXISTS', KEYS[1]) == 0 then
  return redis.error_reply('NOGROUP ' .. KEYS[1] .. ' is gone')
end
local num_dropped = 0
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #row, 2 do consumer[row[i]] = row[i + 1] end
  if consumer.pending == 0 and (consumer.name == ARGV[2] or consumer.idle > tonumber(ARGV[3])) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    num_dropped = num_dropped + 1
  end
end
return num_dropped
