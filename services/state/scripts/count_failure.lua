-- Counts one more failure of a user or item that still exists; saving it clears the count.
-- KEYS  1 user or item      Gives the failures in a row, 0 if it is gone.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
return redis.call('HINCRBY', KEYS[1], 'failures', 1)
