-- Gives the arms in which these items were recommended to a user, and forgets them: each counts once.
-- KEYS  1 shown      ARGV  items
local arms = {}
for i = 1, #ARGV do
  local arm = redis.call('HGET', KEYS[1], ARGV[i])
  if arm then
    arms[#arms + 1] = arm
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return arms
