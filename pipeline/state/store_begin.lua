-- Replace one partition's states with an empty set; store_save.lua documents the layout.
--
-- KEYS[1]  the partition's hash
-- ARGV[1]  `applied` as this worker last saw it, '' if missing; refused if it has changed
-- ARGV[2]  the new `applied`
-- ARGV[3]  start
-- ARGV[4]  partitions
--
-- Returns {1, applied} if written, {0, applied} if refused.
local applied = redis.call('HGET', KEYS[1], 'applied') or ''
if applied ~= ARGV[1] then
  return {0, applied}
end
redis.call('UNLINK', KEYS[1])
redis.call('HSET', KEYS[1], 'applied', ARGV[2], 'start', ARGV[3], 'partitions', ARGV[4])
return {1, ARGV[2]}
