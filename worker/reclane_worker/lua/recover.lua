-- Return what lapsed workers held to its origin lists. Entries that were started when the worker
-- died count one crash each, by message digest; those merely leased do not. Of a chunk whose
-- parts were started each of these counts one: '1 3:2' is one crash of the whole, two of part 3.
-- KEYS leases, attempts, pace
-- ARGV worker id, in-flight prefix, worker prefix, crash memory (s)
-- Returns lapsed worker id, entries returned, entries that were started...
local function blame(counted, parts)
  local whole, known = string.match(counted or '0', '^(%d+)(.*)$')
  for part in pairs(parts) do
    if part == '' then
      whole = whole + 1
    else
      local found
      known, found = string.gsub(known, '( ' .. part .. ':)(%d+)', function(name, crashes)
        return name .. (crashes + 1)
      end)
      if found == 0 then known = known .. ' ' .. part .. ':1' end
    end
  end
  return whole .. known
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local report = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 4)) do
  if id ~= ARGV[1] then
    local inflight, worker = ARGV[2] .. id, ARGV[3] .. id
    local started = {}
    for name in string.gmatch(redis.call('HGET', worker, 'started') or '', '[^\n]+') do
      local field, part = string.match(name, '^([^#]+)#?(%d*)$')
      started[field] = started[field] or {}
      started[field][part] = true
    end
    local rows, suspects = give_all_back(inflight), 0
    for _, row in ipairs(rows) do
      local parts = started[row[1]]
      if parts then
        local _, message = take_apart(row[2])
        suspects = suspects + 1
        local digest = redis.sha1hex(message)
        redis.call('HSET', KEYS[2], digest, blame(redis.call('HGET', KEYS[2], digest), parts))
        redis.call('EXPIRE', KEYS[2], ARGV[4])
      end
    end
    redis.call('DEL', worker)
    redis.call('ZREM', KEYS[1], id)
    redis.call('HDEL', KEYS[3], id)
    report[#report + 1] = id
    report[#report + 1] = #rows
    report[#report + 1] = suspects
  end
end
return report
