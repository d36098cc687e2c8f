-- Push messages that are not known yet, all of them or none; a repeat does nothing.
-- KEYS admission marker, list, counted list..., result key of each message
-- ARGV counted lists, most messages they may hold, messages still to come in this submission
--   (-1 = its first call decided), notify channel, marker ttl (s), then per message: message,
--   placeholder ttl (s), digest of a request with an idempotency key (or ''), and until when
--   that one is wanted (s since the epoch, or '')
-- Returns {1, states} with one letter per message: q queued or known, a attached to the same
--   key's computation, r its answer exists, c the key belongs to another request;
--   or {0, messages waiting} when the queue is full.
-- Without allow-oom: on a full server enqueueing fails loudly.
local counted, limit, coming = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local channel, marker_ttl = ARGV[4], ARGV[5]

-- Whether the same key's outcome stands: an answer, or a failure that a repeat cannot mend.
local function stands(meta)
  if meta.status == 'SUCCESS' then return true end
  local arguments = meta.status == 'FAILURE' and type(meta.result) == 'table'
    and meta.result.exc_message
  return type(arguments) == 'table' and arguments[3] == false
end

-- The placeholder's details where the key's request waits; else the state that its result means.
local function look_up(key, digest)
  local stored = redis.call('GET', key)
  if not stored then return nil, 'new' end
  if is_pending(stored) then return details_of(stored) end
  local ok, meta = pcall(cjson.decode, stored)
  if not ok or type(meta) ~= 'table' or not stands(meta) then return nil, 'new' end
  return nil, meta.reclane_digest and meta.reclane_digest ~= digest and 'c' or 'r'
end

-- Nothing is written before the bound is decided.
local states, new, placeholders = {}, {}, {}
for i = 1, (#ARGV - 5) / 4 do
  local key, at = KEYS[2 + counted + i], 5 + 4 * (i - 1)
  local ttl, digest, expires = tonumber(ARGV[at + 2]), ARGV[at + 3], tonumber(ARGV[at + 4])
  local state = 'q'
  if digest == '' then
    if redis.call('EXISTS', key) == 0 then
      new[#new + 1] = at + 1
      placeholders[key] = {details = {}, ttl = ttl}
    end
  else
    local ours = placeholders[key]
    local details = ours and ours.details
    if not ours then details, state = look_up(key, digest) end
    if state == 'new' then
      state = 'q'
      new[#new + 1] = at + 1
      placeholders[key] = {details = {digest = digest, expires = expires}, ttl = ttl}
    elseif details and details.digest ~= digest then
      state = 'c'
    elseif details then
      state = 'a'
      if channel ~= '' then add_channel(details, channel) end
      if not expires or not details.expires or expires > details.expires then
        details.expires = details.expires and expires
      end
      placeholders[key] = {details = details, ttl = math.max(ttl, ours and ours.ttl or 0)}
    end
  end
  states[i] = state
end

local admitted = redis.call('EXISTS', KEYS[1]) == 1
if not admitted and (coming ~= 0 or #new > 0) then
  local waiting = 0
  for k = 3, 2 + counted do waiting = waiting + redis.call('LLEN', KEYS[k]) end
  if coming < 0 or waiting + #new + coming > limit then return {0, waiting} end
end
if coming ~= 0 then redis.call('SET', KEYS[1], 1, 'EX', marker_ttl) end

for key, one in pairs(placeholders) do
  local ttl = math.max(one.ttl, redis.call('TTL', key))
  redis.call('SET', key, placeholder(one.details), 'EX', ttl)
end
local messages = {}
for n, at in ipairs(new) do messages[n] = ARGV[at] end
if #messages > 0 then redis.call('LPUSH', KEYS[2], unpack(messages)) end
return {1, table.concat(states)}
