-- Take up to N messages, recording each before anybody sees it, and renew the lease.
-- KEYS leases, in-flight, worker, incarnations, scheduled, attempts, list...
-- ARGV worker id, lease (ms), batch id, max messages, max bytes
-- Returns incarnation, now (ms), next due (ms or -1), then field, origin, message, crashes...
-- A batch id that was leased before returns what was recorded for it: safe after a lost reply.
-- Membership in the leases set is ownership: whoever recovers a worker removes it, so a member,
-- however late, still holds everything in its hash.
local leases, inflight, worker = KEYS[1], KEYS[2], KEYS[3]
local id, lease_ms, batch = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local max_messages, max_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local incarnation = redis.call('HGET', worker, 'incarnation')
if not incarnation or not redis.call('ZSCORE', leases, id) then
  for _, entry in ipairs(redis.call('HVALS', inflight)) do give_back(entry) end
  redis.call('DEL', inflight)
  incarnation = redis.call('INCR', KEYS[4])
  redis.call('DEL', worker)
  redis.call('HSET', worker, 'incarnation', incarnation)
end
redis.call('ZADD', leases, now + lease_ms, id)

for _, entry in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, 200)) do
  redis.call('ZREM', KEYS[5], entry)
  give_back(entry)
end

local prefix = incarnation .. ':' .. batch .. ':'
local fields, entries = {}, {}
if redis.call('HGET', worker, 'batch') == batch then
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
  for k = 7, #KEYS do
    local list = KEYS[k]
    while #entries < max_messages and bytes < max_bytes do
      local popped = redis.call('RPOP', list, math.min(32, max_messages - #entries))
      if not popped then break end
      local kept = #popped
      for i, message in ipairs(popped) do
        if bytes > 0 and bytes + #message > max_bytes then
          kept = i - 1
          bytes = max_bytes
          break
        end
        bytes = bytes + #message
        fields[#fields + 1] = prefix .. (#fields + 1)
        entries[#entries + 1] = list .. '\n' .. message
      end
      for i = #popped, kept + 1, -1 do redis.call('RPUSH', list, popped[i]) end
    end
  end
  for i = 1, #fields do redis.call('HSET', inflight, fields[i], entries[i]) end
  redis.call('HSET', worker, 'batch', batch, 'taken', #fields)
end

local due = redis.call('ZRANGE', KEYS[5], 0, 0, 'WITHSCORES')
local reply = {tonumber(incarnation), now, due[2] and tonumber(due[2]) or -1}
local any_crashed = redis.call('EXISTS', KEYS[6]) == 1
for i = 1, #fields do
  local origin, message = take_apart(entries[i])
  local crashes = any_crashed and redis.call('HGET', KEYS[6], redis.sha1hex(message)) or 0
  reply[#reply + 1] = fields[i]
  reply[#reply + 1] = origin
  reply[#reply + 1] = message
  reply[#reply + 1] = tonumber(crashes) or 0
end
return reply
