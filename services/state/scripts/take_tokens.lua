-- Takes tokens from one API key's bucket, which fills by itself.
-- KEYS  1 bucket
-- ARGV  1 tokens gained a second, 2 most tokens, 3 how many to take, 4 how many the same request
--       has taken before
-- Gives 0 if they were taken; else the milliseconds after which the whole request finds enough, and
-- what it had taken is put back.
-- The clock is Redis' own: one for all processes. If it steps back nothing is gained for that
-- moment and nobody is locked out until it comes round again; forward, the bucket is full at most.
local rate, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local cost, taken = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1e6 + tonumber(time[2])

local tokens = most
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at_us')
if held[1] then
  local passed_us = math.max(0, now_us - tonumber(held[2]))
  tokens = math.min(most, tonumber(held[1]) + passed_us * rate / 1e6)
end

-- A request that costs more than the bucket holds waits for a full one and leaves a debt. So it can
-- be answered at all, and the rate holds over time.
local needed = math.min(cost + taken, most) - taken
local wait_ms = 0
if tokens >= needed then
  tokens = tokens - cost
else
  tokens = math.min(most, tokens + taken)
  wait_ms = math.max(1, math.ceil((needed + taken - tokens) / rate * 1000))
end
redis.call('HSET', KEYS[1], 'tokens', tokens, 'at_us', now_us)
-- A full bucket is the same as none.
redis.call('PEXPIRE', KEYS[1], math.ceil((most - tokens) / rate * 1000) + 1000)
return wait_ms
