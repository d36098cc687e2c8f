-- Take on the bulk run that has been due longest, for one lease.
-- KEYS due   ARGV prefix of a run's key, lease (ms), worker id
-- Returns {id, fence, {field, value...}}, or {'', ms until one is due (-1 = none is)}.
-- The fence is never reused: whoever had the run before can save nothing more.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 10)) do
  local run = ARGV[1] .. id
  if redis.call('EXISTS', run) == 1 then
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), id)
    redis.call('HSET', run, 'holder', ARGV[3])
    redis.call('HINCRBY', run, 'tries', 1)
    return {id, redis.call('HINCRBY', run, 'fence', 1), redis.call('HGETALL', run)}
  end
  redis.call('ZREM', KEYS[1], id)
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {'', first[2] and math.max(0, math.ceil(tonumber(first[2]) - now)) or -1}
