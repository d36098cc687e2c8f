-- Take up to N messages, recording each before anybody sees it, and renew the lease.
-- KEYS leases, in-flight, worker, incarnations, scheduled, attempts, interactive list...,
--   bulk list...
-- ARGV worker id, lease (ms), batch id, max messages, max bytes, number of interactive lists,
--   places kept for bulk while any waits, most bulk messages, incarnation as its caller
--   knows it
-- Returns incarnation, now (ms), next due (ms or -1), then field, origin, message, crashes...
-- The last batch id again returns what was recorded for it: safe after a lost reply. A call of
-- another incarnation, or of an earlier batch, takes nothing: either its caller has yet to hear of
-- a new incarnation, or the network delivers a call that its caller gave up, whose messages nobody
-- would work on and whose fields may be in use.
-- Membership in the leases set is ownership: whoever recovers a worker removes it, so a member,
-- however late, still holds everything in its hash.
local leases, inflight, worker = KEYS[1], KEYS[2], KEYS[3]
local id, lease_ms, batch = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local max_messages, max_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local bulk_from, bulk_kept, bulk_most = 7 + ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local known = ARGV[9]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local incarnation = redis.call('HGET', worker, 'incarnation')
if not incarnation or not redis.call('ZSCORE', leases, id) then
  give_all_back(inflight)
  incarnation = redis.call('INCR', KEYS[4])
  redis.call('DEL', worker)
  redis.call('HSET', worker, 'incarnation', incarnation)
end
redis.call('ZADD', leases, now + lease_ms, id)

local due_now = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, 200)
for i = #due_now, 1, -1 do -- what was due first is served first
  redis.call('ZREM', KEYS[5], due_now[i])
  give_back(due_now[i])
end

local prefix = incarnation .. ':' .. batch .. ':'
local fields, entries = {}, {}
local latest = tonumber(redis.call('HGET', worker, 'batch')) or -1
if known ~= tostring(incarnation) or tonumber(batch) < latest then
  -- Nothing is taken.
elseif tonumber(batch) == latest then
  local taken = tonumber(redis.call('HGET', worker, 'taken'))
  for i = 1, taken do
    local entry = redis.call('HGET', inflight, prefix .. i)
    if entry then
      fields[#fields + 1] = prefix .. i
      entries[#entries + 1] = entry
    end
  end
else
  local bytes = 0
  -- From these lists until there are so many messages, or bytes; at least one message.
  local function take(first, last, places, room)
    local before, full = #entries, false
    for k = first, last do
      while #entries < places and not full do
        local popped = redis.call('RPOP', KEYS[k], math.min(32, places - #entries))
        if not popped then break end
        local kept = #popped
        for i, message in ipairs(popped) do
          full = bytes + #message > room
          if full and #entries > before then
            kept = i - 1
            break
          end
          bytes = bytes + #message
          fields[#fields + 1] = prefix .. (#fields + 1)
          entries[#entries + 1] = KEYS[k] .. '\n' .. message
        end
        for i = #popped, kept + 1, -1 do redis.call('RPUSH', KEYS[k], popped[i]) end
      end
    end
  end
  local bulk_waits = 0
  for k = bulk_from, #KEYS do bulk_waits = bulk_waits + redis.call('EXISTS', KEYS[k]) end
  local kept = bulk_waits > 0 and math.min(bulk_kept, bulk_most) or 0
  take(7, bulk_from - 1, max_messages - kept, max_bytes * (1 - kept / max_messages))
  take(bulk_from, #KEYS, math.min(max_messages, #entries + bulk_most), max_bytes)
  for i = 1, #fields do redis.call('HSET', inflight, fields[i], entries[i]) end
  redis.call('HSET', worker, 'batch', batch, 'taken', #fields)
end

local due = redis.call('ZRANGE', KEYS[5], 0, 0, 'WITHSCORES')
local reply = {tonumber(incarnation), now, due[2] and tonumber(due[2]) or -1}
local any_crashed = redis.call('EXISTS', KEYS[6]) == 1
for i = 1, #fields do
  local origin, message = take_apart(entries[i])
  local crashes = any_crashed and redis.call('HGET', KEYS[6], redis.sha1hex(message))
  reply[#reply + 1] = fields[i]
  reply[#reply + 1] = origin
  reply[#reply + 1] = message
  reply[#reply + 1] = crashes or '0'
end
return reply
