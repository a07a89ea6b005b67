-- Save one partition's states: compare-and-set on `applied`, one call, one slot of a cluster.
--
-- KEYS[1]  livestep:{<topic id>:<partition>}:<model fingerprint>   a hash:
--            applied     next offset whose effect is not yet in this hash, decimal
--            start       offset where the states begin, decimal
--            partitions  number of partitions of the topic when the hash was begun, decimal
--            k<key>      one key's record, little-endian:
--                          int64 offset of the last event seen, int64 events seen, state bytes
-- ARGV[1]  `applied` as this worker last saw it; anything else is refused
-- ARGV[2]  the new `applied`; '' while more chunks of the same save follow
-- ARGV[3..]  field, record, field, record, ...
--
-- Returns {1, applied} when written, {0, applied} when refused ('' if there is none).
-- One hash for all: a partition's states and its `applied` are lost together or not at all.
local applied = redis.call('HGET', KEYS[1], 'applied')
if applied ~= ARGV[1] then
  return {0, applied or ''}
end

-- A state never goes back: between the chunks of a newer save, an older one may still arrive.
local count = (#ARGV - 2) / 2
if count > 0 then
  local fields = {}
  for i = 1, count do fields[i] = ARGV[2 * i + 1] end
  local present = redis.call('HMGET', KEYS[1], unpack(fields))
  local write, n = {}, 0
  for i = 1, count do
    local record = ARGV[2 * i + 2]
    local old = present[i]
    if not old or struct.unpack('<i8', old) < struct.unpack('<i8', record) then
      write[n + 1], write[n + 2] = fields[i], record
      n = n + 2
    end
  end
  if n > 0 then redis.call('HSET', KEYS[1], unpack(write)) end
end

if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[1], 'applied', ARGV[2])
  applied = ARGV[2]
end
return {1, applied}
