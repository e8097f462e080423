-- Notes that all texts were written anew, unless others were published meanwhile.
-- KEYS  1 note on texts
-- ARGV  1 the writer of summaries before ("": none noted), 2 the new one, 3 that of preferences
if (redis.call('HGET', KEYS[1], 'summaries') or '') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'summaries', ARGV[2], 'preferences', ARGV[3])
redis.call('HDEL', KEYS[1], 'rewriting')
return 1
