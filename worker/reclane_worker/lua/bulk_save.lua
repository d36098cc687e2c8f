-- Write what became of a step of a bulk run, all or nothing, if the run is still the caller's.
-- KEYS run, due   ARGV id, fence, ms until it is due again (-1 = never), 1 to let go of it (or 0),
--   a state of the run in which the commands are left out ('' = none), then commands, each as its
--   number of words and its words
-- Returns {1, state}, or {0} where the caller has the run no more.
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[2] then return {0} end
if redis.call('HEXISTS', KEYS[1], 'holder') == 0 then return {0} end
local at = 6
if redis.call('HGET', KEYS[1], 'state') == ARGV[5] then at = #ARGV + 1 end
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, at + words))
  at = at + words + 1
end
if ARGV[4] == '1' then redis.call('HDEL', KEYS[1], 'holder') end
local state = redis.call('HGET', KEYS[1], 'state') or ''
-- One that was resumed or cancelled just now is not let go of for good.
if ARGV[3] == '-1' and state ~= 'running' and state ~= 'cancelling' then
  redis.call('ZREM', KEYS[2], ARGV[1])
else
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZADD', KEYS[2], now + math.max(0, tonumber(ARGV[3])), ARGV[1])
end
return {1, state}
