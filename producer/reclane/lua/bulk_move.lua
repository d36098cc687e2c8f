-- Pause, resume or cancel a bulk run.
-- KEYS run, due, output   ARGV id, new state, channel of waiting workers, states it may come from...
-- Returns {1} moved or there already, {0, state} where its state does not allow it ('' = no such
-- run), or {-1, id} where its output is another run's by now ('' = a newer one has finished).
local state = redis.call('HGET', KEYS[1], 'state')
if state == ARGV[2] then return {1} end
local allowed = false
for i = 4, #ARGV do allowed = allowed or state == ARGV[i] end
if not allowed then return {0, state or ''} end
if ARGV[2] == 'running' then
  local output = redis.call('HMGET', KEYS[3], 'run', 'finished')
  if output[1] and output[1] ~= ARGV[1] then return {-1, output[1]} end
  if tonumber(output[2] or 0) > tonumber(redis.call('HGET', KEYS[1], 'started')) then
    return {-1, ''}
  end
  redis.call('HSET', KEYS[3], 'run', ARGV[1])
end
redis.call('HSET', KEYS[1], 'state', ARGV[2])
redis.call('HDEL', KEYS[1], 'trouble', 'tries', 'ended')
redis.call('PERSIST', KEYS[1])
-- A worker that has it sees the new state by itself.
if redis.call('HEXISTS', KEYS[1], 'holder') == 0 then
  redis.call('ZADD', KEYS[2], redis.call('TIME')[1] * 1000, ARGV[1])
end
redis.call('PUBLISH', ARGV[3], ARGV[1])
return {1}
