-- Add a schedule, or replace what it is told and keep what it has become.
-- KEYS entry, schedule   ARGV definition, since, due, '1' to replace, most schedules
-- Returns 1 done, 0 the name is taken, -1 there are too many.
local known = redis.call('HEXISTS', KEYS[1], 'definition') == 1
if known and ARGV[4] ~= '1' then return 0 end
if not known and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then return -1 end
redis.call('HSET', KEYS[1], 'definition', ARGV[1], 'since', ARGV[2])
local paused = redis.call('HEXISTS', KEYS[1], 'paused') == 1
redis.call('ZADD', KEYS[2], paused and -1 or ARGV[3], KEYS[1])
return 1
