-- Push messages that are not known yet, all of them or none; a repeat does nothing.
-- KEYS admission (result key of the submission's first message), list, counted list...,
--   result key of each message
-- ARGV counted lists, most messages they may hold (0 = no bound), messages still to come in this
--   submission (-1 = its first call decided), notify channel, then per message:
--   message, placeholder ttl (s), digest of a request with an idempotency key (or '')
-- Returns {1, states} with one letter per message: q queued or known, a attached to the same
--   key's computation, r its answer exists, c the key belongs to another request;
--   or {0, messages waiting} when the queue is full.
-- Without allow-oom: on a full server enqueueing fails loudly.
local counted, limit, coming = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local channel = ARGV[4]

-- Whether the same key's outcome stands: an answer, or a failure that a repeat cannot mend.
local function stands(meta)
  if meta.status == 'SUCCESS' then return true end
  local arguments = meta.status == 'FAILURE' and type(meta.result) == 'table'
    and meta.result.exc_message
  return type(arguments) == 'table' and arguments[3] == false
end

local function state_of(key, digest, seen)
  if seen[key] then return (digest == '' or seen[key] == digest) and 'a' or 'c' end
  local stored = redis.call('GET', key)
  if not stored then return 'new' end
  if digest == '' then return 'q' end
  if is_pending(stored) then
    if details_of(stored).digest ~= digest then return 'c' end
    add_waiter(key, stored, channel)
    return 'a'
  end
  local ok, meta = pcall(cjson.decode, stored)
  if not ok or type(meta) ~= 'table' or not stands(meta) then return 'new' end
  if meta.reclane_digest and meta.reclane_digest ~= digest then return 'c' end
  return 'r'
end

local states, seen, new = {}, {}, {}
for i = 1, (#ARGV - 4) / 3 do
  local key, digest = KEYS[2 + counted + i], ARGV[4 + 3 * i]
  local state = state_of(key, digest, seen)
  seen[key] = digest
  if state == 'new' then
    new[#new + 1] = i
    state = 'q'
  end
  states[i] = state
end

if #new > 0 and limit > 0 then
  local waiting = 0
  for k = 3, 2 + counted do waiting = waiting + redis.call('LLEN', KEYS[k]) end
  if coming >= 0 and waiting + #new + coming > limit then return {0, waiting} end
  if coming < 0 and redis.call('EXISTS', KEYS[1]) == 0 then return {0, waiting} end
end

local messages = {}
for n, i in ipairs(new) do
  local digest = ARGV[4 + 3 * i]
  local details = digest ~= '' and {digest = digest} or {}
  redis.call('SET', KEYS[2 + counted + i], placeholder(details), 'EX', ARGV[3 + 3 * i])
  messages[n] = ARGV[2 + 3 * i]
end
if #new > 0 then redis.call('LPUSH', KEYS[2], unpack(messages)) end
return {1, table.concat(states)}
