-- Pause, resume or cancel a bulk run.
-- KEYS run, due, output, what else there is of the run...
-- ARGV id, new state, channel of waiting workers, prefix of a run's key, states it may come from...
-- Returns {1} moved or there already, {0, state} where its state does not allow it ('' = no such
-- run), or {-1, id} where its output is another run's by now ('' = a newer one has finished).
local state = redis.call('HGET', KEYS[1], 'state')
if state == ARGV[2] then return {1} end
local allowed = false
for i = 5, #ARGV do allowed = allowed or state == ARGV[i] end
if not allowed then return {0, state or ''} end
if ARGV[2] == 'running' then
  for _, field in ipairs(redis.call('HKEYS', KEYS[3])) do
    local other = string.match(field, '^run:(.+)')
    if other and other ~= ARGV[1] and redis.call('EXISTS', ARGV[4] .. other) == 1 then
      return {-1, other}
    end
  end
  local finished = tonumber(redis.call('HGET', KEYS[3], 'finished') or 0)
  local started = redis.call('HGET', KEYS[1], 'started')
  if finished > tonumber(started) then return {-1, ''} end
  redis.call('HSET', KEYS[3], 'run:' .. ARGV[1], started)
  -- What had failed was to be forgotten.
  for _, key in ipairs(KEYS) do redis.call('PERSIST', key) end
end
redis.call('HSET', KEYS[1], 'state', ARGV[2])
redis.call('HDEL', KEYS[1], 'trouble', 'tries', 'ended')
-- A worker that has it sees the new state by itself.
if redis.call('HEXISTS', KEYS[1], 'holder') == 0 then
  redis.call('ZADD', KEYS[2], redis.call('TIME')[1] * 1000, ARGV[1])
end
redis.call('PUBLISH', ARGV[3], ARGV[1])
return {1}
