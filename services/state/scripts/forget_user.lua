-- Removes every trace of one user, waiting and dead-lettered work included. An update in flight
-- finds no revision to save against.
-- KEYS  1 events, 2 dead letters, then the user's own keys      ARGV  1 user id, 2 consumer group
-- Gives 1 if the user was known.
for _, stream in ipairs({KEYS[1], KEYS[2]}) do
  for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+')) do
    local fields = entry[2]
    for i = 1, #fields, 2 do
      if fields[i] == 'user_id' and fields[i + 1] == ARGV[1] then
        redis.call('XACK', stream, ARGV[2], entry[1])
        redis.call('XDEL', stream, entry[1])
      end
    end
  end
end
local known = redis.call('EXISTS', KEYS[3])
for i = 3, #KEYS do
  redis.call('DEL', KEYS[i])
end
return known
