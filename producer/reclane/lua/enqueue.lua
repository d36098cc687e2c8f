-- Push messages that are not known yet, all of them or none; a repeat does nothing.
-- KEYS admission marker, pace, list, counted list..., list served before..., result key of each
--   message
-- ARGV counted lists, lists served before (this one included), most messages the counted may
--   hold, messages still to come in this submission (-1 = its first call decided), how long the
--   most urgent of these can wait (s, or ''), now (s since the epoch), notify channel, marker
--   ttl (s), then per message: message, placeholder ttl (s), digest of a request with an
--   idempotency key (or ''), and until when it is wanted (s since the epoch, or '')
-- Returns {1, states} with one letter per message: q queued or known, a attached to the same
--   key's computation, r its answer exists, c the key belongs to another request;
--   {0, messages waiting} when the queue is full; or {-1, predicted wait (ms), deadline (ms)}
--   when one cannot be answered in time at the pace that workers have told.
-- Without allow-oom: on a full server enqueueing fails loudly.
local counted, before, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local coming, urgent, now = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local channel, marker_ttl = ARGV[7], ARGV[8]
local head = 8

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
for i = 1, (#ARGV - head) / 4 do
  local key, at = KEYS[3 + counted + before + i], head + 4 * (i - 1)
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

local function waiting(first, lists)
  local sum = 0
  for k = first, first + lists - 1 do sum = sum + redis.call('LLEN', KEYS[k]) end
  return sum
end

-- The first deadline that is nearer than what is served before it takes: {wait, deadline} in
-- seconds. Nobody's pace is known while workers start: then nothing is.
local function unreachable()
  local places = {}
  for n, at in ipairs(new) do
    local expires = tonumber(ARGV[at + 3])
    if expires then places[#places + 1] = {n, expires - now} end
  end
  if urgent then places[#places + 1] = {#new + coming, urgent} end
  if #places == 0 then return nil end
  local pace = 0
  for _, one in ipairs(redis.call('HVALS', KEYS[2])) do pace = pace + (tonumber(one) or 0) end
  if pace <= 0 then return nil end
  local ahead = waiting(4 + counted, before)
  for _, place in ipairs(places) do
    local wait = (ahead + place[1]) / pace
    if wait > place[2] then return {wait, place[2]} end
  end
end

local admitted = redis.call('EXISTS', KEYS[1]) == 1
if not admitted and (coming ~= 0 or #new > 0) then
  local found = waiting(4, counted)
  if coming < 0 or found + #new + coming > limit then return {0, found} end
  local late = unreachable()
  if late then return {-1, math.ceil(late[1] * 1000), math.floor(late[2] * 1000)} end
end
if coming ~= 0 then redis.call('SET', KEYS[1], 1, 'EX', marker_ttl) end

for key, one in pairs(placeholders) do
  local ttl = math.max(one.ttl, redis.call('TTL', key))
  redis.call('SET', key, placeholder(one.details), 'EX', ttl)
end
local messages = {}
for n, at in ipairs(new) do messages[n] = ARGV[at] end
if #messages > 0 then redis.call('LPUSH', KEYS[3], unpack(messages)) end
return {1, table.concat(states)}
