-- Save one partition's states: a compare-and-set on `applied`; the hash is in one cluster slot.
--
-- KEYS[1]  livestep:{<topic id>:<partition>}:<model fingerprint>:<consumer group>   a hash:
--            applied     next offset whose effect is not yet in this hash, decimal
--            start       offset where the states begin, decimal
--            partitions  number of partitions of the topic when the hash was created, decimal
--            saving      only between the chunks of a save: <expected>/<new applied>/<next chunk>
--            k<key>      one key's record, little-endian:
--                          int64 offset of the last event seen
--                          int64 number of events seen; -1 ends the record here: the key has no
--                                state, and its field is deleted
--                          state bytes of each tensor; with a session gap the last are int64 ms
--                          8 bytes XXH3-64, big-endian, of all bytes before; its seed is XXH3-64 of
--                                <key>, seeded with XXH3-64 of <topic>/<group>/<model>/<partition>
--            k           with a session gap, the partition's clock: int64 offset, int64 1, int64
--                          ms, checksum as above
-- ARGV[1]  `applied` as this worker last saw it; refused if it has changed
-- ARGV[2]  the new `applied`
-- ARGV[3]  index of this chunk within the save, from 0
-- ARGV[4]  '1' for the last chunk, which moves `applied`; else '0'
-- ARGV[5..]  field, record, field, record, ...
--
-- Returns {1, applied} if written, {0, applied} if refused ('' if it is missing).
-- Everything is in one hash, so a partition's states and its `applied` are only lost together.
local applied = redis.call('HGET', KEYS[1], 'applied')
if applied ~= ARGV[1] then
  return {0, applied or ''}
end

-- If Redis has lost a chunk (a failover, or a flush and a restart in between), the next chunk is
-- refused; otherwise `applied` would cover records that are missing.
local save = ARGV[1] .. '/' .. ARGV[2] .. '/'
if ARGV[3] ~= '0' then
  local saving = redis.call('HGET', KEYS[1], 'saving')
  -- The next number means that this chunk was done before and its answer was lost, or that another
  -- worker did it, perhaps with other keys. So it is written again.
  if saving ~= save .. ARGV[3] and saving ~= save .. (ARGV[3] + 1) then
    return {0, applied}
  end
end

-- Never replace a newer state: a chunk of an older save may arrive between those of a newer one.
-- Done in steps because Lua can't unpack more than a few thousand values.
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
    -- A value too short for a record was not written by a worker: overwrite it.
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
