-- One user as of one moment.
-- KEYS  1 user, 2 history, 3 preference
-- Gives {{version, preference version, revision}, history entries, state}, or nil for no such user.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return nil
end
return {
  redis.call('HMGET', KEYS[1], 'version', 'folded_version', 'revision'),
  redis.call('HGETALL', KEYS[2]),
  redis.call('GET', KEYS[3]),
}
