-- Begin a bulk run, once: the same id again does nothing.
-- KEYS run, runs, due, output   ARGV id, spec, output, channel of waiting workers, most runs known,
--   prefix of a run's key
-- Returns {1} begun, {0} known already, {-1, id} where another run writes to the same output.
if redis.call('EXISTS', KEYS[1]) == 1 then return {0} end
for _, field in ipairs(redis.call('HKEYS', KEYS[4])) do
  local other = string.match(field, '^run:(.+)')
  if other and redis.call('EXISTS', ARGV[6] .. other) == 1 then return {-1, other} end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'spec', ARGV[2], 'output', ARGV[3], 'state', 'running',
  'started', now)
redis.call('HSET', KEYS[4], 'run:' .. ARGV[1], now)
redis.call('PERSIST', KEYS[4]) -- a run may take longer than what has ended is known
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - tonumber(ARGV[5]))
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('PUBLISH', ARGV[4], ARGV[1])
return {1}
