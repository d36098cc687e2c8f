-- Return what lapsed workers held to its origin lists. Entries that were started when the worker
-- died count one crash each, by message digest; those merely leased do not.
-- KEYS leases, attempts, pace
-- ARGV worker id, in-flight prefix, worker prefix, crash memory (s)
-- Returns lapsed worker id, entries returned, entries that were started...
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local report = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 4)) do
  if id ~= ARGV[1] then
    local inflight, worker = ARGV[2] .. id, ARGV[3] .. id
    local started = {}
    for field in string.gmatch(redis.call('HGET', worker, 'started') or '', '[^\n]+') do
      started[field] = true
    end
    local rows, suspects = give_all_back(inflight), 0
    for _, row in ipairs(rows) do
      if started[row[1]] then
        local _, message = take_apart(row[2])
        suspects = suspects + 1
        redis.call('HINCRBY', KEYS[2], redis.sha1hex(message), 1)
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
