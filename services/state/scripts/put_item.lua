-- Stores an item; queues its summary unless there is one.
-- KEYS  1 item, 2 queue
-- ARGV  1 item id, 2 version, 3 title, 4 "1" if there is a picture, 5 the picture,
--       6 status, 7 summary or the reason of the failure, 8 what it is done for, 9 who wrote it,
--       10 the cover for people, "" if there is none
-- Gives the item's status. An item of the same version keeps the summary it has, and one that
-- waits already is not queued twice; a failed one is tried again. A failure replaces the summary of
-- another writer. An item that an earlier version stored without a cover for people gets it; nobody
-- takes it away from one that has it.
local now = redis.call('HMGET', KEYS[1], 'version', 'status', 'writer')
local status = ARGV[6]
local same = now[1] == ARGV[2]
local other = status == 'failed' and now[3] and now[3] ~= ARGV[9]
local cover = ARGV[10]
if same and status ~= 'ready' and not other and (now[2] == 'ready' or now[2] == status) then
  if cover ~= '' and redis.call('HEXISTS', KEYS[1], 'cover') == 0 then
    redis.call('HSET', KEYS[1], 'cover', cover)
  end
  return now[2]
end
if same and cover == '' then
  cover = redis.call('HGET', KEYS[1], 'cover') or ''
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'title', ARGV[3], 'status', status,
  'writer', ARGV[9])
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[1], 'image', ARGV[5])
end
if cover ~= '' then
  redis.call('HSET', KEYS[1], 'cover', cover)
end
if status == 'ready' then
  redis.call('HSET', KEYS[1], 'summary', ARGV[7])
elseif status == 'failed' then
  redis.call('HSET', KEYS[1], 'reason', ARGV[7])
else
  redis.call('XADD', KEYS[2], '*', 'item_id', ARGV[1], 'version', ARGV[2], 'origin', ARGV[8])
end
return status
