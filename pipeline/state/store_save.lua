-- Save one partition's states: compare-and-set on `applied`, one call, one slot of a cluster.
--
-- KEYS[1]  livestep:{<topic id>:<partition>}:<model fingerprint>:<consumer group>   a hash:
--            applied     next offset whose effect is not yet in this hash, decimal
--            start       offset where the states begin, decimal
--            partitions  number of partitions of the topic when the hash was begun, decimal
--            saving      only between the chunks of a save: <expected>/<new applied>/<next chunk>
--            k<key>      one key's record, little-endian:
--                          int64 offset of the last event seen
--                          int64 events seen; one of -1 says that the key has no state, ends here,
--                                and takes away what is there
--                          state bytes, each tensor's; with a session gap the last are int64 ms
--                          8 bytes XXH3-64, big-endian, of all before it; its seed is XXH3-64 of
--                                <key>, whose seed is that of <topic>/<group>/<model>/<partition>
--            k           with a session gap, the partition's clock: int64 offset, int64 1, int64
--                          ms, checksum as above
-- ARGV[1]  `applied` as this worker last saw it; anything else is refused
-- ARGV[2]  the new `applied`
-- ARGV[3]  which chunk of the save this is, from 0
-- ARGV[4]  '1' for the last chunk, which moves `applied`; else '0'
-- ARGV[5..]  field, record, field, record, ...
--
-- Returns {1, applied} when written, {0, applied} when refused ('' if there is none).
-- One hash for all: a partition's states and its `applied` are lost together or not at all.
local applied = redis.call('HGET', KEYS[1], 'applied')
if applied ~= ARGV[1] then
  return {0, applied or ''}
end

-- The chunks of a save are a chain: where Redis has lost one of them (a failover, a flush and a new
-- beginning in between), the next one is refused, or `applied` would cover what is not there.
local save = ARGV[1] .. '/' .. ARGV[2] .. '/'
if ARGV[3] ~= '0' then
  local saving = redis.call('HGET', KEYS[1], 'saving')
  -- The next number: done before and its answer was lost, or done by another worker, whose chunks
  -- need not have the same keys. So it is written all the same.
  if saving ~= save .. ARGV[3] and saving ~= save .. (ARGV[3] + 1) then
    return {0, applied}
  end
end

-- A state never goes back: between the chunks of a newer save, an older one may still arrive.
-- In steps, for Lua can't unpack more than some thousand values.
local count = (#ARGV - 4) / 2
for from = 1, count, 1000 do
  local to = math.min(from + 999, count)
  local fields = {}
  for i = from, to do fields[i - from + 1] = ARGV[2 * i + 3] end
  local present = redis.call('HMGET', KEYS[1], unpack(fields))
  local write, n = {}, 0
  local forget, m = {}, 0
  for i = from, to do
    local field, record = ARGV[2 * i + 3], ARGV[2 * i + 4]
    local old = present[i - from + 1]
    -- One too short to be a record is none: somebody has written it.
    if not old or #old < 16 or struct.unpack('<i8', old) < struct.unpack('<i8', record) then
      if struct.unpack('<i8', record, 9) < 0 then
        m = m + 1
        forget[m] = field
      else
        write[n + 1], write[n + 2] = field, record
        n = n + 2
      end
    end
  end
  if n > 0 then redis.call('HSET', KEYS[1], unpack(write)) end
  if m > 0 then redis.call('HDEL', KEYS[1], unpack(forget)) end
end

if ARGV[4] == '1' then
  redis.call('HDEL', KEYS[1], 'saving')
  redis.call('HSET', KEYS[1], 'applied', ARGV[2])
  return {1, ARGV[2]}
end
redis.call('HSET', KEYS[1], 'saving', save .. (ARGV[3] + 1))
return {1, applied}
