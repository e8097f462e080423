-- Adds interactions to one user's history, each at most once, and tells the workers.
-- KEYS  1 user, 2 history, 3 preference, 4 events
-- ARGV  1 user id, 2 lifetime in seconds, 3 first revision of a new user, 4 most interactions,
--       5 "1" to queue an update, 6 what it is done for, then event id, timestamp, item id of each
--       interaction
-- Gives {history version, then for each interaction 0 accepted, 1 duplicate, 2 older than what
--       is kept, 3 no room}

-- Bytes, as Python compares UTF-8: `<` of Lua asks the server's locale.
local function is_after(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end

local known = redis.call('EXISTS', KEYS[1]) == 1
if not known then
  redis.call('DEL', KEYS[2], KEYS[3])
end
local dropped = redis.call('HMGET', KEYS[1], 'dropped_ms', 'dropped_event')
local dropped_ms = tonumber(dropped[1])

local reply, num_accepted = {0}, 0
local room = tonumber(ARGV[4]) - redis.call('HLEN', KEYS[2])
for i = 7, #ARGV, 3 do
  local event_id, timestamp_ms, item_id = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local ms = tonumber(timestamp_ms)
  local code = 0
  if redis.call('HEXISTS', KEYS[2], event_id) == 1 then
    code = 1
  elseif dropped_ms and (ms < dropped_ms
      or (ms == dropped_ms and not is_after(event_id, dropped[2]))) then
    code = 2
  elseif room < 1 then
    code = 3
  else
    redis.call('HSET', KEYS[2], event_id, timestamp_ms .. ':' .. item_id)
    num_accepted = num_accepted + 1
    room = room - 1
  end
  reply[#reply + 1] = code
end

if num_accepted == 0 then
  reply[1] = tonumber(redis.call('HGET', KEYS[1], 'version') or 0)
  return reply
end
if not known then
  redis.call('HSET', KEYS[1], 'revision', ARGV[3], 'folded_version', 0)
end
local version = redis.call('HINCRBY', KEYS[1], 'version', num_accepted)
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[2])
if ARGV[5] == '1' then
  redis.call('XADD', KEYS[4], '*', 'user_id', ARGV[1], 'version', version, 'origin', ARGV[6])
end
reply[1] = version
return reply
