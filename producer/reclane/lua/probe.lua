-- Whether Redis takes writes, and how long a worker's lease still lasts by Redis's clock.
-- KEYS leases   ARGV worker id   returns ms left (negative: lapsed), or nil without a lease
-- Removing a member that is never there changes nothing, and is refused where writes are.
redis.call('ZREM', KEYS[1], '')
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not ends then return false end
local time = redis.call('TIME')
return tonumber(ends) - (time[1] * 1000 + math.floor(time[2] / 1000))
