-- Write down what has become of a schedule, and when it is due next.
-- KEYS entry, schedule   ARGV definition and since as they were read, new since, due, field, value
--   ('' removes it)...
-- Returns 1 done, 0 where it was removed, or somebody else came first: then its due time stays.
local told = redis.call('HGET', KEYS[1], 'definition')
if not told then return 0 end
for i = 5, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
if told ~= ARGV[1] or redis.call('HGET', KEYS[1], 'since') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'since', ARGV[3])
local paused = redis.call('HEXISTS', KEYS[1], 'paused') == 1
redis.call('ZADD', KEYS[2], paused and -1 or ARGV[4], KEYS[1])
return 1
