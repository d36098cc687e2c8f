-- What a result key may hold: nothing, a placeholder while the request waits, or a result.
-- Prepended to scripts that store a result or enqueue. The placeholder is Celery's PENDING, so
-- that stock clients read it as they read nothing. It may say more:
--   {"status": "PENDING", "result": null, "reclane": {...}} with
--   notify: further channels to tell; and for a request with an idempotency key
--   digest: of the request, expires: until when it is wanted (s since the epoch; none = for ever)
local PENDING = '{"status": "PENDING", "result": null'

local function is_pending(stored)
  return string.sub(stored, 1, #PENDING) == PENDING
end

local function placeholder(details)
  if not next(details) then return PENDING .. '}' end
  return PENDING .. ', "reclane": ' .. cjson.encode(details) .. '}'
end

local function details_of(pending)
  local ok, meta = pcall(cjson.decode, pending)
  return ok and type(meta) == 'table' and type(meta.reclane) == 'table' and meta.reclane or {}
end

-- Whether `stored` must never be overwritten (SUCCESS, FAILURE, REVOKED, or unreadable).
local function is_terminal(stored)
  if not stored or is_pending(stored) then return false end
  local ok, meta = pcall(cjson.decode, stored)
  if not ok or type(meta) ~= 'table' then return true end
  return meta.status == 'SUCCESS' or meta.status == 'FAILURE' or meta.status == 'REVOKED'
end

-- Store and publish a result unless a terminal one exists, or its key waits for another request
-- by now; returns false, or the channels that the placeholder names.
local function store(key, meta, ttl)
  local stored = redis.call('GET', key)
  if is_terminal(stored) then return false end
  local details = stored and #stored > #PENDING + 1 and is_pending(stored) and details_of(stored)
  if details and details.digest then
    local digest = string.match(meta, '"reclane_digest": "(%x+)"')
    if digest and digest ~= details.digest then return false end
  end
  redis.call('SET', key, meta, 'EX', ttl)
  redis.call('PUBLISH', key, meta)
  return details and details.notify or {}
end

-- Gather ids by channel, so that each channel gets one message, ids one a line.
local function gather(notify, channels, id)
  for _, channel in ipairs(channels) do
    notify[channel] = notify[channel] and (notify[channel] .. '\n' .. id) or id
  end
end

local function tell(notify)
  for channel, ids in pairs(notify) do redis.call('PUBLISH', channel, ids) end
end

-- Have one more channel told when a waiting request ends; at most 100 are.
local function add_channel(details, channel)
  local channels = details.notify or {}
  for _, known in ipairs(channels) do
    if known == channel then return end
  end
  if #channels < 100 then channels[#channels + 1] = channel end
  details.notify = channels
end
